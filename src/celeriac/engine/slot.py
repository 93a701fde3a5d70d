"""One worker slot: the process (or, for ``solo``, the thread) that leases, runs and settles."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.engine.consumer import Consumer
from celeriac.engine.interrupt import interrupt
from celeriac.engine.ledger import Ledger
from celeriac.engine.outbox import Outbox, Settler
from celeriac.engine.runner import Runner
from celeriac.engine.watchdog import Watchdog
from celeriac.errors import OwnerLost, StoreError
from celeriac.keyvalue import KeyValueStore
from celeriac.pool import Pool
from celeriac.pools.asyncio import AsyncioPool
from celeriac.pools.inline import InlinePool
from celeriac.pools.thread import ThreadPool
from celeriac.settings import EngineSettings
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.relay import Relay

logger = logging.getLogger("celeriac.engine")

IDLE_CHECK = 2.0
"""Seconds after which an idle slot looks for work unasked.  The bell should never miss; this bounds the harm if it does."""

QUIET_AFTER = 0.02
"""Seconds without a message after which a slot is idle, where the store pushes messages.  Shorter, and slots say so between two
messages of a load; longer, and the autoscaler learns of it later."""

EXIT_OK, EXIT_OWNER_LOST, EXIT_ORPHANED, EXIT_MAX_TASKS, EXIT_MAX_MEMORY = 0, 3, 4, 5, 6
"""How a slot's process ends when nothing killed it."""

EXIT_FAILED = 70
"""The slot failed in a way that is a bug (``EX_SOFTWARE``)."""


@dataclass(frozen=True, slots=True)
class Node:
    """What all slots of a node have in common."""

    settings: EngineSettings
    make_broker: Callable[[], Broker]
    make_backend: Callable[[], Backend | None]
    make_key_values: Callable[[], KeyValueStore]
    """May return the same object each time in one process."""
    runner: Runner
    bus: Bus


@dataclass(frozen=True, slots=True)
class Seat:
    """What the supervisor gives to one slot.  ``control``, ``bell`` and ``ledger`` are file descriptors."""

    slot: int
    place: int
    """Among the slots of the node, from 0; free again when its slot has ended."""
    owner: str
    queues: tuple[str, ...]
    """What to consume at first."""
    control: int
    """A sequenced-packet socket to the supervisor; see :mod:`celeriac.engine.control`."""
    bell: int
    """The end of a pipe to read from: a byte arrives when there may be work."""
    ledger: int
    report: bool
    """Whether the supervisor wants telemetry."""


class Slot:
    """Runs one seat, in the thread that calls :meth:`run`."""

    def __init__(self, node: Node, seat: Seat) -> None:
        settings = node.settings
        self._settings = settings
        self._seat = seat
        self._runner = node.runner
        self._broker = node.make_broker()
        self._control = Control(socket.socket(fileno=seat.control))
        self._ledger = Ledger(seat.ledger, settings.slot_concurrency)
        self._relay = Relay(self._control.send_telemetry)
        self._reports = node.bus.subscribe(self._relay, in_children=False) if seat.report else None
        settler = Settler(self._broker, node.make_backend(), node.runner, node.make_key_values)
        outbox = Outbox(settler, self._ledger, node.runner, node.bus)
        self._pool = make_pool(settings, self._must_pause)
        self.consumer = Consumer(
            seat.owner, seat.queues, settings, self._broker, node.runner, self._pool, outbox, self._ledger, node.bus
        )
        self._wake = WakePipe()
        self._watchdog = Watchdog(self.consumer, settings.patience_seconds, self._wake.ring)
        self._idle_said = False
        self._idle_said_at = 0.0
        """When the supervisor was told, where the store pushes messages; 0: it was told otherwise."""
        self._is_quiet = False
        """Whether nothing has come for a while."""

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop or due for replacement; return the exit code.

        Raises:
            OwnerLost: the leases were taken over; nothing more can be settled.
        """
        self._open()
        try:
            while not self._must_end():
                if self._run_once():
                    continue
                self._rest()
            return self._close()
        except OwnerLost:
            logger.warning("Slot %d lost its leases and starts again", self._seat.slot)
            self._control.send("lost")
            return EXIT_OWNER_LOST

    def _open(self) -> None:
        self._runner.on_slot_start(self._seat.place if self._settings.pool == "processes" else None)
        _tell_forks(self._runner)
        threading.Thread(target=self._obey, name="celeriac-control", daemon=True).start()
        self._pool.start(self.consumer, self._wake.ring)
        self._watchdog.start()
        if self.consumer.register():
            self._broker.subscribe(self._seat.owner, self._wake.ring)
            self._control.send("ready")

    def _run_once(self) -> bool:
        self._watchdog.wake()
        worked = self.consumer.run_once()
        if self._reports:
            self._relay.flush()
        # A concurrent pool goes on by itself: there is nothing to do until a run ends or a message arrives.
        return worked and (self._settings.slot_concurrency == 1 or not self._pool_is_full())

    def _pool_is_full(self) -> bool:
        return self._pool.room() <= len(self.consumer.inbox)

    def _rest(self) -> None:
        """Wait for a message, the end of a run, or an order."""
        if not self.consumer.running():
            self._watchdog.rest()
        longest = min(IDLE_CHECK, self.consumer.next_look())
        if self._pool_is_full():
            self._wake.wait(self._seat.bell, longest)
        elif self._broker.pushes:
            self._listen(longest)
        else:
            self._say_idle()
            if self._wake.wait(self._seat.bell, longest) is not False:
                self._idle_said = False

    def _listen(self, longest: float) -> None:
        """Wait for a message that the store pushes.  Most come soon after the last one was settled, if at all."""
        listening = self.consumer.listen(quiet=self._is_quiet)
        now = time.monotonic()
        if self._is_quiet and listening.fd is not None and now - self._idle_said_at > IDLE_CHECK / 2:
            # Again and again: it shows that this slot is not deaf.
            self._control.send("idle")
            self._idle_said_at = now
        longest = min(longest if self._is_quiet else QUIET_AFTER, listening.longest)
        woken = self._wake.wait(self._seat.bell, longest, listening.fd)
        if woken is not None and self._idle_said_at:
            self._control.send("busy")
            self._idle_said_at = 0.0
        # A turn that finds nothing comes between two waits, and is no message.
        self._is_quiet = woken is None or (self._is_quiet and listening.fd is None)

    def _say_idle(self) -> None:
        if not self._idle_said:
            self._control.send("idle")
            self._idle_said = True

    def _must_end(self) -> bool:
        return self.consumer.stopping or self._exit_code() != EXIT_OK

    def _exit_code(self) -> int:
        most = self._settings.max_tasks_per_child
        if most is not None and self.consumer.runs >= most:
            return EXIT_MAX_TASKS
        return EXIT_MAX_MEMORY if self._over_memory() else EXIT_OK

    def _over_memory(self) -> bool:
        most = self._settings.max_memory_per_child
        return most is not None and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most

    def _must_pause(self) -> bool:
        return self.consumer.must_pause() or self._over_memory()

    def _close(self) -> int:
        code = self._exit_code()
        self.consumer.stop()
        self._control.send("closing")
        self.consumer.hand_back_persistently()
        self._pool.stop()
        self.consumer.wind_up()
        if self.consumer.gave_up:
            self._control.send("gave_up")
        else:
            with contextlib.suppress(StoreError):  # it holds nothing; its name runs out by itself
                self._broker.unregister(self._seat.owner)
        self._runner.on_slot_stop()
        if self._reports:
            self._relay.flush()
        self._watchdog.stop()
        self._broker.close()
        self._control.send("closed")
        return code

    # -- orders ----------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        for order, *details in self._control.orders():
            if order == "stop":
                self.consumer.stop(*details)
                self._wake.ring()
            elif order == "interrupt":
                interrupt(self.consumer, self._runner, *details)
            elif order == "consume":
                self.consumer.consume(details[0])
                self._wake.ring()
            elif order == "runner":
                self._runner.on_order(*details)
            elif order == "running":
                self._control.send("running", *self._describe(details[0]))
        self._orphaned()

    def interrupt_main(self) -> None:
        """Interrupt what this thread runs, if it has come to one of its limits (called in a signal's handler)."""
        now = time.monotonic()
        for entry in self._ledger.running():
            for reason, deadline in (("hard", entry.hard_deadline), ("soft", entry.soft_deadline)):
                if deadline and now >= deadline:
                    interrupt(self.consumer, self._runner, entry.tag, reason, deadline - entry.started)
                    return

    def _describe(self, question: int) -> tuple[Any, ...]:
        running = [(job.delivery.tag, job.describe()) for job, _ in self.consumer.running()]
        return question, running, [job.describe() for job in list(self.consumer.inbox)]

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody beats for this slot, so others will take its work over.  Stop at once."""
        if not self._settings.in_process and not self.consumer.stopping:
            os._exit(EXIT_ORPHANED)


def _tell_forks(runner: Runner) -> None:
    """Have a process that a task forks know it.  Python keeps such hooks for ever, so it is given no reference."""
    known = weakref.ref(runner)

    def forked() -> None:
        found = known()
        if found is not None:
            found.on_task_fork()

    os.register_at_fork(after_in_child=forked)


class Control:
    """A slot's end of its conversation with the supervisor: packets of one kind byte and a payload."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, *words: Any) -> None:
        """Tell the supervisor something."""
        try:
            self._sock.send(b"P" + pickle.dumps(words))
        except OSError:
            logger.debug("The supervisor is gone")

    def send_telemetry(self, data: bytes) -> None:
        """Send a packet of telemetry, or raise ``BlockingIOError``."""
        self._sock.send(b"T" + data, socket.MSG_DONTWAIT)

    def orders(self) -> Any:
        """Orders as they come; ends when the supervisor is gone."""
        while True:
            try:
                data = self._sock.recv(1 << 20)
            except OSError:
                return
            if not data:
                self._sock.close()
                return
            yield pickle.loads(data)


class WakePipe:
    """Wakes a thread that waits for it and for the bell at once."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        weakref.finalize(self, close_all, (self._read, self._write))  # others may ring it for as long as they know it
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rung = False

    def ring(self) -> None:
        """Wake the waiter, from any thread."""
        if not self._rung:
            self._rung = True
            os.write(self._write, b".")

    def wait(self, bell: int, timeout: float, also: int | None = None) -> bool | None:
        """Wait for a ring, the bell or another file descriptor, up to ``timeout`` seconds.

        Returns whether it was one of the latter; ``None``: it was nothing.
        """
        watched = [self._read, bell] if also is None else [self._read, bell, also]
        ready, _, _ = select.select(watched, [], [], timeout)
        if self._read in ready:
            os.read(self._read, 4096)
            # After reading: a ring in between is not written, and need not be, because the waiter is awake now.
            self._rung = False
        if bell in ready:
            os.read(bell, 4096)
        return bell in ready or also in ready if ready else None


def close_all(descriptors: Iterable[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def make_pool(settings: EngineSettings, must_pause: Callable[[], bool]) -> Pool:
    """The pool that one slot runs its jobs in."""
    if settings.pool == "threads":
        return ThreadPool(settings.concurrency)
    if settings.pool == "asyncio":
        return AsyncioPool(settings.concurrency)
    return InlinePool(must_pause)
