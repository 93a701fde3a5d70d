"""What one slot holds of a kombu transport."""

from __future__ import annotations

import heapq
import threading
import time
from dataclasses import dataclass
from typing import Any

from celeriac.compat.through_kombu.journal import Journal
from celeriac.compat.through_kombu.traits import Traits
from celeriac.message import Delivery


@dataclass(slots=True)
class Held:
    """One message."""

    delivery: Delivery
    message: Any
    """Kombu's."""
    taken: bool
    """Whether the transport does not have it any more: it was acknowledged, or is of those that keep nothing."""


class Leases:
    """The messages of one owner, by tag.  Callers see to it that one thread at a time changes them."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._held: dict[int, Held] = {}
        self._waiting: list[tuple[float, int]] = []
        self._finished: list[Held] = []
        self._journal: Journal | None = None
        self._serial = 0
        self.lock = threading.Lock()

    def begin(self, journal: Journal) -> None:
        """Start an owner's life."""
        self._journal = journal

    def end(self) -> None:
        """End it; nothing is held."""
        if self._journal is not None:
            self._journal.remove()
            self._journal = None

    def close(self) -> None:
        """The process gives up its claim; what it holds is for others to take over when the owner's time has run out."""
        if self._journal is not None:
            self._journal.close()

    def is_of(self, owner: str) -> bool:
        """Whether these are this owner's."""
        return self._journal is not None and self._journal.owner == owner

    # -- one message -----------------------------------------------------------------------------------------------

    def add(self, message: Any, queue: str, raw: bytes) -> Held:
        """A message that has come, written down before anything else is done with it."""
        return self._put(message, queue, raw, taken=not self._traits.keeps)

    def _put(self, message: Any, queue: str, raw: bytes, *, taken: bool) -> Held:
        self._serial += 1
        held = Held(Delivery(self._serial, queue, raw), message, taken)
        if self._journal is not None:
            self._journal.lease(held.delivery, taken=taken)
        with self.lock:
            self._held[self._serial] = held
        return held

    def get(self, tag: int) -> Held | None:
        """What is held under a tag."""
        return self._held.get(tag)

    def take(self, held: Held) -> None:
        """Acknowledge a message that is still to run, if the transport can do that with a single one."""
        if not held.taken and not (self._traits.in_order and len(self._held) > 1):
            if self._journal is not None:
                self._journal.take(held.delivery.tag)
            held.taken = True
            held.message.ack()

    def finish(self, held: Held) -> None:
        """Everything that follows from a message is written."""
        if held.taken:
            pass
        elif self._traits.in_order:
            self._finished.append(held)
        else:
            held.message.ack()
        self.forget(held)

    def acknowledge_in_order(self) -> None:
        """Acknowledge what is finished, if nothing that came before it is left."""
        if not self._finished or any(not held.taken for held in self._held.values()):
            return
        finished, self._finished = self._finished, []
        for held in finished:
            held.message.ack()

    def forget(self, held: Held) -> None:
        """It is not held any more."""
        tag = held.delivery.tag
        with self.lock:
            self._held.pop(tag, None)
        if self._journal is not None:
            self._journal.done(tag, empty=not self._held)

    def void(self) -> None:
        """The connection is gone, and with it what the transport has given away over it."""
        for held in list(self._held.values()):
            if not held.taken:
                self.forget(held)
        self._finished.clear()

    # -- what is not due -------------------------------------------------------------------------------------------

    def park(self, held: Held, due: float) -> None:
        """Hold a message until it is due (seconds since the epoch)."""
        heapq.heappush(self._waiting, (due, held.delivery.tag))

    def due(self, limit: int) -> list[Delivery]:
        """Messages whose time has come, under new tags."""
        found: list[Delivery] = []
        now = time.time()
        while self._waiting and len(found) < limit and self._waiting[0][0] <= now:
            held = self._held.get(heapq.heappop(self._waiting)[1])
            if held is not None:
                again = self._put(held.message, held.delivery.queue, held.delivery.raw, taken=held.taken)
                self.forget(held)
                found.append(again.delivery)
        return found

    def parked(self) -> list[int]:
        """Tags of what is not due."""
        return [tag for _, tag in self._waiting if tag in self._held]

    # -- all -------------------------------------------------------------------------------------------------------

    def tags(self) -> list[int]:
        """Tags of all that is held."""
        return list(self._held)

    def deliveries(self) -> list[Delivery]:
        """All that is held and not parked, by ascending tag."""
        parked = set(self.parked())
        return [held.delivery for tag, held in sorted(self._held.items()) if tag not in parked]

    def unacknowledged(self) -> list[Held]:
        """What the transport would give away again, from any thread."""
        with self.lock:
            return [held for held in self._held.values() if not held.taken]
