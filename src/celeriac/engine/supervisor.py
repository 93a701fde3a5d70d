"""The node's parent process: starts slots, watches them, and keeps the background loops going.

It never touches a task's bytes, except to put what a dead slot held in its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import signal
import time
import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from celeriac.engine.autoscaler import Autoscaler
from celeriac.engine.beat import Beat
from celeriac.engine.dead_expirer import DeadExpirer
from celeriac.engine.doorbell import Doorbell
from celeriac.engine.expirer import Expirer
from celeriac.engine.forkserver import Exited, Spawned
from celeriac.engine.launcher import Launcher
from celeriac.engine.loop import Duty, Loop
from celeriac.engine.outbox import Settler
from celeriac.engine.rescuer import Rescuer
from celeriac.engine.runner import Fate
from celeriac.engine.scheduler import Scheduler
from celeriac.engine.seats import Roster, SlotHandle
from celeriac.engine.slot import EXIT_MAX_MEMORY, EXIT_MAX_TASKS, EXIT_OK, EXIT_OWNER_LOST, Node, close_all
from celeriac.engine.slot_rescue import SlotRescue
from celeriac.engine.subscription import Subscription
from celeriac.engine.time_limits import TimeLimits, kill
from celeriac.errors import ConfigurationError
from celeriac.telemetry.events import SlotExited, SlotStarted, WorkerReady, WorkerStopping

logger = logging.getLogger("celeriac.engine")

EXIT_REASONS = {
    EXIT_OK: "shutdown",
    EXIT_MAX_TASKS: "max_tasks",
    EXIT_MAX_MEMORY: "max_memory",
    EXIT_OWNER_LOST: "owner_lost",
}
RESPAWN_PAUSE = 0.2
"""Seconds; doubles with each slot in a row that dies before it was ready, up to :data:`LONGEST_RESPAWN_PAUSE`."""
LONGEST_RESPAWN_PAUSE = 10.0

LOOP_SECONDS = 5.0
"""How long a stop waits for all background duties together.  One that hangs in a call to a store that is away has nothing to lose."""

EXIT_CUT_OFF = 1
"""Exit code of a node that did not let its tasks finish, as Celery's."""


class Shutdown(IntEnum):
    """How to stop.  A later request can only be harsher."""

    NONE = 0
    WARM = 1
    """Running tasks finish."""
    SOFT = 2
    """Running tasks have ``soft_shutdown_seconds`` to finish; then cold."""
    COLD = 3
    """Running tasks are killed; late-acknowledged ones go back to their queues."""


class Supervisor:
    """Runs one node."""

    def __init__(self, node: Node, launcher: Launcher, *, report: bool = False) -> None:
        """``report``: have the slots send their telemetry here."""
        self.node = node
        self.settings = node.settings
        self.roster = Roster()
        self.queues = Subscription(node.settings.queues)
        """What is consumed.  Changes reach the slots that there are, and those that start later."""
        self.queues.on_change = self._consume
        self.broker = node.make_broker()
        self.started_at = time.time()
        self.on_ready: Callable[[], None] = lambda: None
        """Called once, in the supervisor's thread, when all first slots take work."""
        self.on_packet: Callable[[bytes], None] = lambda _data: None
        """Called with each packet of telemetry from a slot."""
        self._launcher = launcher
        self._report = report
        self._run_id = f"{node.settings.node}:{os.getpid()}:{int(time.time() * 1000):x}"
        self._serial = 0
        self._target = self.settings.slots
        self._early_deaths = 0
        self._respawn_at = 0.0
        self._shutdown = Shutdown.NONE
        self._stopped_at = self._deadline = 0.0
        self.cut_off = False
        """Whether something is left undone: a cold shutdown has ended slots, or the store was away when it was to be settled."""
        self.announced = False
        """Whether all first slots have taken work."""
        self.broker_error = ""
        """Why the broker cannot be reached, or empty."""
        self._answers: dict[int, list[Any]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        weakref.finalize(self, close_all, (self._wake_r, self._wake_w))
        os.set_blocking(self._wake_w, False)
        os.set_blocking(self._wake_r, False)
        self._rescue, self._loops = self._make_loops()

    def _make_loops(self) -> tuple[SlotRescue, dict[str, Loop]]:
        settings, bus, broker = self.settings, self.node.bus, self.broker
        backend = self.node.make_backend()
        settler = Settler(broker, backend, self.node.runner, self.node.make_key_values)
        rescuer = Rescuer(broker, settler, self.node.runner, settings, bus)
        rescue = SlotRescue(rescuer)
        duties: list[Duty] = [
            Beat(broker, self.roster, self.queues, settings, self._lost, self._note_broker),
            rescuer,
            rescue,
            Scheduler(broker, self.queues, bus),
            TimeLimits(self.roster, settings.pool),
        ]
        if not broker.pushes:
            duties.append(Doorbell(self.node.make_broker(), self.roster, self.queues, settings.wait_seconds))
        if settings.autoscale:
            duties.append(Autoscaler(broker, self.roster, self.queues, settings, self.scale))
        if backend is not None:
            duties.append(Expirer(backend))
        if settings.dead_max_age:
            duties.append(DeadExpirer(broker, settings.dead_max_age))
        with contextlib.suppress(ConfigurationError):  # nothing can keep keys, so nobody has any
            duties.append(Expirer(self.node.make_key_values(), "key-expirer"))
        return rescue, {duty.name: Loop(duty) for duty in duties}

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until stopped; return the exit code."""
        self._selector.register(self._launcher.socket, selectors.EVENT_READ, self._on_launcher)
        self._selector.register(self._wake_r, selectors.EVENT_READ, self._on_wake)
        for loop in self._loops.values():
            loop.start()
        while not self._finished():
            self._fill_up()
            for key, _ in self._selector.select(self._timeout()):
                key.data()
        return self._end()

    def _finished(self) -> bool:
        overdue = self._shutdown == Shutdown.SOFT and time.monotonic() >= self._deadline
        if overdue or self._shutdown == Shutdown.COLD:  # again and again: a slot may only just have got its process
            self._kill_all()
        return self._shutdown != Shutdown.NONE and not len(self.roster) and not self._awaits_rescue()

    def _awaits_rescue(self) -> bool:
        """Whether slots that died are still to be rescued, and the store is not away for as long as a lease lasts."""
        if not self._rescue.pending:
            return False
        if time.monotonic() - self._stopped_at <= self.settings.lease_seconds:
            return True
        logger.error(
            "Stopping without %s, which is away: another node takes over what %d dead slots held",
            self.broker.url, self._rescue.pending,
        )  # fmt: skip
        self.cut_off = True
        return False

    def _timeout(self) -> float:
        now = time.monotonic()
        if self._shutdown != Shutdown.NONE:
            return 0.05
        return max(0.01, self._respawn_at - now) if self._respawn_at > now else 1.0

    def _fill_up(self) -> None:
        """Start slots up to the wanted number."""
        if self._shutdown == Shutdown.NONE and time.monotonic() >= self._respawn_at:
            for _ in range(self._target - sum(not slot.closing for slot in self.roster.all())):
                self._spawn()

    def _end(self) -> int:
        for loop in self._loops.values():
            loop.end()
        self.roster.close()
        deadline = time.monotonic() + LOOP_SECONDS
        for loop in self._loops.values():
            loop.join(max(0.0, deadline - time.monotonic()))
        self._launcher.stop()
        self.broker.close()
        self._selector.close()
        return EXIT_CUT_OFF if self.cut_off else 0

    # -- slots -----------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        self._serial += 1
        owner = f"{self._run_id}:{self._serial}"
        place, queues, concurrency = self.roster.free_place(), self.queues.names, self.settings.slot_concurrency
        slot = SlotHandle(self._serial, place, owner, queues, concurrency, report=self._report)
        self.roster.add(slot)
        if self.queues.names != slot.seat.queues:  # they changed when the slot was not in the roster yet
            slot.order("consume", self.queues.names)
        self._selector.register(slot.control, selectors.EVENT_READ, lambda: self._on_packet(slot))
        self._launcher.spawn(slot.seat)

    def _on_launcher(self) -> None:
        events = self._launcher.events()
        if not events:
            raise RuntimeError("The fork server is gone; the node cannot go on. Start it again")
        for event in events:
            slot = self.roster.get(event.slot)
            if slot is None:
                continue
            if isinstance(event, Spawned):
                slot.pid = event.pid
                slot.handed_over()
            else:
                self._exited(slot, event)

    def _exited(self, slot: SlotHandle, event: Exited) -> None:
        while self._on_packet(slot):
            pass
        self._selector.unregister(slot.control)
        self.roster.remove(slot.number)
        reason = EXIT_REASONS.get(event.status, "crashed")
        if any(fate is Fate.TIME_LIMIT for fate, _ in slot.fates.values()):
            reason = "time_limit"
        if not slot.closed:
            self._died(slot, event, reason)
        if self.node.bus.listening:
            self.node.bus.emit(SlotExited(str(slot.number), event.pid, reason, event.status))
        slot.close()

    def _died(self, slot: SlotHandle, event: Exited, reason: str) -> None:
        how = _how(event.status)
        if not slot.fates:
            logger.error("Slot %d (pid %d): Worker exited prematurely: %s", slot.number, event.pid, how)
        else:
            logger.debug("Slot %d (pid %d) ended: %s", slot.number, event.pid, reason)
        if not slot.ready:
            self._early_deaths += 1
            pause = min(LONGEST_RESPAWN_PAUSE, RESPAWN_PAUSE * 2**self._early_deaths)
            self._respawn_at = time.monotonic() + pause
        slot.fates.setdefault(0, (Fate.CRASHED, how))
        self._rescue.add(slot)

    def _on_packet(self, slot: SlotHandle) -> bool:
        try:
            data = slot.control.recv(1 << 20, 0x40)  # MSG_DONTWAIT
        except OSError:
            return False
        if not data:
            return False
        if data[:1] == b"T":
            self.on_packet(data[1:])
        else:
            self._on_word(slot, *pickle.loads(data[1:]))
        return True

    def _on_word(self, slot: SlotHandle, word: str, *details: Any) -> None:
        if word == "idle":
            self.roster.mark_idle(slot)
        elif word == "busy":
            slot.idle = False
        elif word == "ready":
            self._on_slot_ready(slot)
        elif word == "closing":
            slot.closing = True
            slot.idle = False
        elif word == "closed":
            slot.closed = True
        elif word == "gave_up":
            self.cut_off = True
        elif word == "lost":
            slot.fates[0] = (Fate.SILENT, "its leases were taken over")
        elif word == "running":
            self._answers.setdefault(details[0], []).append((slot, *details[1:]))
            with self.roster.changed:
                self.roster.changed.notify_all()

    def _on_slot_ready(self, slot: SlotHandle) -> None:
        slot.ready = True
        self._early_deaths = 0
        if self.node.bus.listening:
            self.node.bus.emit(SlotStarted(str(slot.number), slot.pid))
        if not self.announced and all(each.ready for each in self.roster.all()):
            self.announced = True
            if self.node.bus.listening:
                self.node.bus.emit(self._ready_event())
            self.on_ready()

    def _ready_event(self) -> WorkerReady:
        settings = self.settings
        concurrency = self._target * settings.slot_concurrency
        return WorkerReady(settings.node, os.getpid(), concurrency, self.queues.names, time.time() - self.started_at)

    def _lost(self, owner: str) -> None:
        """Others have this slot's messages.  What it still runs has no effect any more, so it ends at once."""
        for slot in self.roster.all():
            if slot.owner == owner:
                slot.fates[0] = (Fate.SILENT, "its leases were taken over")
                kill(slot.pid) if not self.settings.in_process else slot.order("stop")

    def _note_broker(self, error: str) -> None:
        self.broker_error = error

    # -- for control, from any thread ------------------------------------------------------------------------------

    def scale(self, slots: int) -> None:
        """Have so many slots from now on."""
        self._target = max(0, slots)
        surplus = sum(not slot.closing for slot in self.roster.all()) - self._target
        for slot in sorted(self.roster.all(), key=lambda each: not each.idle)[: max(0, surplus)]:
            slot.closing = True
            slot.order("stop")
        self._wake()

    def _consume(self, queues: tuple[str, ...]) -> None:
        for slot in self.roster.all():
            slot.order("consume", queues)

    @property
    def target(self) -> int:
        """How many slots are wanted."""
        return self._target

    def running(
        self, timeout: float = 1.0
    ) -> list[tuple[SlotHandle, list[tuple[int, dict[str, Any]]], list[dict[str, Any]]]]:
        """Ask all slots what they run and hold: ``(slot, [(tag, task)], [unstarted tasks])`` each."""
        question = time.monotonic_ns()
        asked = [slot for slot in self.roster.all() if slot.ready]
        for slot in asked:
            slot.order("running", question)
        with self.roster.changed:
            self.roster.changed.wait_for(lambda: len(self._answers.get(question, ())) >= len(asked), timeout)
        return self._answers.pop(question, [])

    def terminate(self, slot: SlotHandle, tag: int, reason: str, signum: int = signal.SIGKILL) -> None:
        """End one running task, with its process where it has one of its own."""
        slot.fates[tag] = (Fate.TERMINATED, reason)
        if self.settings.pool == "processes":
            os.kill(slot.pid, signum)
        else:
            slot.order("interrupt", tag, "terminate", 0.0)

    def consuming_age(self) -> float | None:
        """Seconds since this node last asked for messages while it could start some; ``None``: all of its slots are busy."""
        idle = [slot.idle_at for slot in self.roster.all() if slot.idle and not slot.ledger.running()]
        doorbell = self._loops.get("doorbell")
        if not idle:
            return None
        return time.monotonic() - (doorbell.turned_at if doorbell else min(idle))

    def loop_ages(self) -> dict[str, float]:
        """Seconds since each background loop last did its duty."""
        now = time.monotonic()
        return {name: now - loop.turned_at for name, loop in self._loops.items()}

    # -- stopping --------------------------------------------------------------------------------------------------

    def stop(self, how: Shutdown) -> None:
        """Ask to stop, from any thread or a signal handler."""
        if how > self._shutdown:
            now = time.monotonic()
            self._stopped_at = self._stopped_at or now
            self._deadline = now + self.settings.soft_shutdown_seconds  # before anybody looks at it
            self._shutdown = how
        self._wake()

    @property
    def stopping(self) -> Shutdown:
        """How it is stopping, if it is."""
        return self._shutdown

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b".")

    def _on_wake(self) -> None:
        os.read(self._wake_r, 4096)
        if self._shutdown == Shutdown.NONE:
            return
        if self.node.bus.listening:
            self.node.bus.emit(WorkerStopping(self.settings.node, self._shutdown.name.lower()))
        if self._shutdown == Shutdown.COLD:
            return
        for slot in self.roster.all():
            # After the length of a lease what it holds is anybody's to take over, and a node that is to stop would never end.
            slot.order("stop", self.settings.lease_seconds)

    def _kill_all(self) -> None:
        for slot in self.roster.all():
            self.cut_off = True
            slot.fates.setdefault(0, (Fate.SHUTDOWN, "cold shutdown"))
            if self.settings.in_process:
                self._abandon(slot)
            elif slot.pid:
                kill(slot.pid)

    def _abandon(self, slot: SlotHandle) -> None:
        """A slot in this process cannot be killed without it: it is fenced off and rescued while it still runs.  Whoever called
        :meth:`run` ends the process, or leaves a thread behind in it.
        """
        self._selector.unregister(slot.control)
        self.roster.remove(slot.number)
        self._rescue.add(slot)


def _how(status: int) -> str:
    """How a process ended, from its exit status: ``signal 9 (SIGKILL)`` or ``exitcode 1``."""
    if status >= 0:
        return f"exitcode {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"signal {-status} ({names.get(-status, 'unknown')})"
