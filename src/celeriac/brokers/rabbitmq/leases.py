"""What the owners of this process hold, and what is known about its acknowledgement."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.connection import WORK
from celeriac.brokers.rabbitmq.deliveries import Pushed
from celeriac.message import Delivery

DOUBTFUL_SECONDS = 2.0
"""RabbitMQ writes acknowledgements to disk a little later: after it was killed, what was acknowledged so recently comes back."""

MOST_DOUBTFUL = 2000


class Lease(NamedTuple):
    """A delivery and how to acknowledge it."""

    delivery: Delivery
    amqp_tag: int
    epoch: int
    """Of the connection that it came by.  Once there is another, the server has taken it back."""


class Leases:
    """The leases of one connection."""

    def __init__(self) -> None:
        self.held: dict[str, dict[int, Lease]] = {}
        """By owner and tag."""
        self._next: dict[str, int] = {}
        self._unacked: dict[int, bytes] = {}
        """Tags of all messages of this connection that are not acknowledged, ascending, with the consumers that they came by."""
        self._epoch = -1
        self._acked: deque[tuple[float, bytes]] = deque(maxlen=MOST_DOUBTFUL)

    def of(self, owner: str) -> dict[int, Lease]:
        """An owner's, by tag."""
        return self.held.setdefault(owner, {})

    def deliveries(self, owner: str) -> list[Delivery]:
        """An owner's, by ascending tag."""
        return [lease.delivery for _, lease in sorted(self.of(owner).items())]

    def add(self, owner: str, queue: str, got: wire.Gotten) -> Delivery:
        """A message was leased."""
        tag = self._next[owner] = self._next.get(owner, 0) + 1
        delivery = Delivery(tag, queue, got.raw)
        self.of(owner)[tag] = Lease(delivery, got.tag, self._epoch)
        return delivery

    def taken(self, got: Iterable[wire.Gotten]) -> None:
        """Messages were fetched, leased or not."""
        for each in got:
            self._unacked[each.tag] = b""

    def pushed(self, pushed: Iterable[Pushed]) -> None:
        """Messages came by consumers."""
        for consumer, got in pushed:
            self._unacked[got.tag] = consumer

    def count_unacked(self) -> int:
        """Messages that are not acknowledged, leased or not."""
        return len(self._unacked)

    def outstanding(self, consumer: bytes) -> int:
        """How many messages of a consumer are not acknowledged."""
        return sum(each == consumer for each in self._unacked.values())

    def on_epoch(self, epoch: int) -> list[bytes]:
        """There is a new connection: return the messages whose acknowledgement may have been lost with the old one."""
        if epoch == self._epoch:
            return []
        self._epoch = epoch
        self._unacked.clear()
        since = time.monotonic() - DOUBTFUL_SECONDS
        doubtful = [raw for at, raw in self._acked if at >= since]
        self._acked.clear()
        return doubtful

    def forget(self, owner: str) -> list[Lease]:
        """An owner is gone; return what it held."""
        return list(self.held.pop(owner, {}).values())

    def acks(self, leases: Iterable[Lease]) -> list[bytes]:
        """Frames that acknowledge these leases, with as few words as possible."""
        now = time.monotonic()
        tags = set()
        for lease in leases:
            if lease.epoch == self._epoch:
                tags.add(lease.amqp_tag)
                self._acked.append((now, lease.delivery.raw))
        return self._ack(tags)

    def drop(self, tags: Iterable[int]) -> list[bytes]:
        """Frames that acknowledge messages that were not leased."""
        return self._ack(set(tags))

    def _ack(self, tags: set[int]) -> list[bytes]:
        if not tags:
            return []
        for tag in tags:
            self._unacked.pop(tag, None)
        floor = next(iter(self._unacked), None)
        below = tags if floor is None else {tag for tag in tags if tag < floor}
        frames = [wire.ack_frame(WORK, max(below), multiple=True)] if below else []
        return frames + [wire.ack_frame(WORK, tag, multiple=False) for tag in sorted(tags - below)]

    def requeue(self, tags: Iterable[int]) -> list[bytes]:
        """Frames that give messages back."""
        given = sorted(tags)
        for tag in given:
            self._unacked.pop(tag, None)
        return [wire.requeue_frame(WORK, tag, multiple=False) for tag in given]

    def requeue_leases(self, leases: Iterable[Lease]) -> list[bytes]:
        """Frames that give leases back, as far as the server has not taken them back itself."""
        return self.requeue(lease.amqp_tag for lease in leases if lease.epoch == self._epoch)
