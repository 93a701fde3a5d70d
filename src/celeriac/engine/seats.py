"""The supervisor's view of its slots."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
import time
from itertools import count
from typing import Any

from celeriac.engine.ledger import Ledger, create_file
from celeriac.engine.runner import Fate
from celeriac.engine.slot import Seat


class SlotHandle:
    """One slot as the supervisor knows it.  Made before its process; closed after it was rescued."""

    def __init__(
        self, number: int, place: int, owner: str, queues: tuple[str, ...], concurrency: int, *, report: bool
    ) -> None:
        self.number = number
        self.owner = owner
        self.pid = 0
        self.ready = False
        self.idle = False
        self.idle_at = 0.0
        """When it last said so; monotonic clock."""
        self.closing = False
        self.closed = False
        """Whether it has put everything in its place and is about to end."""
        self.started_at = time.time()
        self.fates: dict[int, tuple[Fate, str]] = {}
        """Why the supervisor is about to kill the process, by the tag of the task that it is about; 0 for all others."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bell_read, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        ledger = create_file(concurrency)
        self.ledger = Ledger(ledger, concurrency)
        self.seat = Seat(number, place, owner, queues, theirs.detach(), bell_read, ledger, report)

    def handed_over(self) -> None:
        """The process has its copies of the file descriptors."""
        for fd in (self.seat.control, self.seat.bell, self.seat.ledger):
            os.close(fd)

    def ring(self) -> None:
        """Tell the slot that there may be work."""
        self.idle = False
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it has not read the last one yet, or is gone
            os.write(self._bell, b".")

    def order(self, *words: Any) -> None:
        """Send an order (see ``Slot._obey``)."""
        with contextlib.suppress(OSError):  # it is gone; its exit is on its way to us
            self.control.send(pickle.dumps(words))

    def close(self) -> None:
        """Give the file descriptors back.  The ledger's memory goes when nobody looks at it any more."""
        self.control.close()
        os.close(self._bell)


class Roster:
    """All slots of a node, safe to look at from any thread."""

    def __init__(self) -> None:
        self._slots: dict[int, SlotHandle] = {}
        self._closed = False
        self.changed = threading.Condition()

    def add(self, slot: SlotHandle) -> None:
        """Count a slot in."""
        with self.changed:
            self._slots[slot.number] = slot

    def remove(self, number: int) -> None:
        """Count it out."""
        with self.changed:
            self._slots.pop(number, None)
            self.changed.notify_all()

    def get(self, number: int) -> SlotHandle | None:
        """One slot."""
        return self._slots.get(number)

    def all(self) -> list[SlotHandle]:
        """All slots."""
        with self.changed:
            return list(self._slots.values())

    def free_place(self) -> int:
        """The lowest place among the slots that nobody has."""
        with self.changed:
            taken = {slot.seat.place for slot in self._slots.values()}
        return next(place for place in count() if place not in taken)

    def owners(self) -> list[str]:
        """Names under which the ready ones hold leases."""
        return [slot.owner for slot in self.all() if slot.ready]

    def wait_for_idle(self, timeout: float) -> bool:
        """Block until a slot is idle."""
        with self.changed:
            found = self.changed.wait_for(
                lambda: self._closed or any(slot.idle for slot in self._slots.values()), timeout
            )
            return found and not self._closed

    def close(self) -> None:
        """There will be no more slots: whoever waits for an idle one need not."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def mark_idle(self, slot: SlotHandle) -> None:
        """A slot has nothing to do."""
        with self.changed:
            slot.idle = True
            slot.idle_at = time.monotonic()
            self.changed.notify_all()

    def ring_one(self) -> None:
        """Wake one idle slot."""
        with self.changed:
            for slot in self._slots.values():
                if slot.idle:
                    slot.ring()
                    return

    def __len__(self) -> int:
        return len(self._slots)
