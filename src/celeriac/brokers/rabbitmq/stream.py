"""What the server pushes to one owner, ahead of its leases.

While nothing is to be done, each queue has a consumer that brings the next message the moment that it comes.  While there is work,
the consumer's prefetch is what the owner may hold, so that half of it runs while the server sends the other half.  As soon as a body
keeps the owner from taking more, the consumers end and what they have brought goes back (:meth:`Stream.withdraw`): first the
consumers, so that the server has nobody here to send it to again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from celeriac.brokers.rabbitmq import methods, wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.deliveries import Pushed
from celeriac.brokers.rabbitmq.leases import Leases
from celeriac.brokers.rabbitmq.topology import Topology
from celeriac.errors import StoreUnavailable

GROWTH = 4
"""A consumer's prefetch becomes at most so many times as large at once: a change from tiny to slow tasks costs little then."""

SHRINKING = 4
"""A consumer is replaced when its prefetch is more than so many times what it should be.  What a slot may hold goes up and down with
each run that was measured, and each replacement costs a round trip."""

IN_A_ROW = 0.01
"""Messages that come within so many seconds after the ones before, and :data:`ROUND_TRIPS`, are a load for which more may be fetched
at once.  Shorter, and a slow server never gets to send in batches; longer, and a slot that has little to do holds what another could
run."""

LOAD_ENDS = 0.25
"""Seconds without a message, and :data:`ROUND_TRIPS`, after which a load is over, and an idle owner's consumer is to bring no more than
can start at once.  Shorter, and it begins anew, one message at a time, whenever a long queue's process collects its garbage, for which
it stops."""

ROUND_TRIPS = 3
"""From one message to the next where only one is pushed: the note is confirmed, the acknowledgement goes, the message comes; and one
to spare.  On a long way these alone take longer than the seconds above."""

SMALLEST_SPLIT = 8
"""From how many messages on one half is taken while the other is on its way."""

LARGEST_SHARE = 200
"""Most messages that are taken at once.  What is left waits here, so that tiny tasks go on while the server pauses; larger shares
were slower."""

STANDING_PREFETCH = 20
"""Of a consumer that stays, on a queue that has one active consumer at a time: nobody else could run what it holds."""


class Kind(Enum):
    """How a queue's messages come."""

    PUSHED = "by a consumer while there is room for them"
    STAYS = "by a consumer that stays: if it ended, the server would make another one the active one"
    FETCHED = "by asking: the queue would be deleted with its last consumer, and with it what it has"


@dataclass(frozen=True, slots=True)
class _Consumer:
    tag: str
    queue: str
    prefetch: int


class Stream:
    """Consumers of one owner, and the messages that they brought and that are not leased yet."""

    def __init__(self, connection: Connection, topology: Topology, leases: Leases, wake: Callable[[], None]) -> None:
        """``wake``: called, from any thread, when something has come after :meth:`listen`."""
        self._connection = connection
        self._topology = topology
        self._leases = leases
        self._wake = wake
        self._consumers: dict[str, _Consumer] = {}
        """By queue."""
        self._waiting: dict[str, deque[wire.Gotten]] = {}
        """By queue, the oldest first."""
        self._queues: list[str] = []
        """All that ever had a consumer.  A consumer's tag begins with its queue's number here."""
        self._kinds: dict[str, Kind] = {}
        self._serial = 0
        self._listening = False
        self._took_at = float("-inf")
        self.round_trip = 0.0
        """Seconds, as it was last seen."""
        self._busy = False
        connection.listener = self

    @property
    def waiting(self) -> int:
        """Messages that have come and are not leased."""
        return sum(map(len, self._waiting.values()))

    def waiting_queues(self) -> list[str]:
        """Queues of these messages."""
        with self._connection.lock:
            return [queue for queue, waiting in self._waiting.items() if waiting]

    def queue_of(self, consumer: bytes) -> str:
        """See :class:`~celeriac.brokers.rabbitmq.connection.Listener`."""
        return self._queues[int(consumer.partition(b".")[0])]

    # -- what the connection tells ---------------------------------------------------------------------------------

    def pushed(self, messages: list[Pushed]) -> None:
        """See :class:`~celeriac.brokers.rabbitmq.connection.Listener`."""
        self._leases.pushed(messages)
        last, waiting = b"", deque[wire.Gotten]()
        for consumer, got in messages:
            if consumer != last:
                last, waiting = consumer, self._waiting.setdefault(self.queue_of(consumer), deque())
            waiting.append(got)
        self._ring()

    def cancelled(self, consumer: bytes) -> None:
        """See :class:`~celeriac.brokers.rabbitmq.connection.Listener`."""
        known = self._consumers.get(self.queue_of(consumer))
        if known is not None and known.tag.encode() == consumer:
            del self._consumers[known.queue]
        self._topology.forget()
        self._ring()

    def lost(self) -> None:
        """See :class:`~celeriac.brokers.rabbitmq.connection.Listener`."""
        self._consumers.clear()
        self._waiting.clear()
        self._ring()

    def _ring(self) -> None:
        if self._listening:
            self._listening = False
            self._wake()

    # -- taking ----------------------------------------------------------------------------------------------------

    def take(self, queues: Sequence[str], limit: int) -> list[tuple[str, wire.Gotten]]:
        """Up to ``limit`` of the messages that have come, of the queues in their order."""
        with self._connection.lock:
            self._listening = False
            limit = self._share(limit)
            taken: list[tuple[str, wire.Gotten]] = []
            for queue in queues:
                waiting = self._waiting.get(queue)
                while waiting and len(taken) < limit:
                    taken.append((queue, waiting.popleft()))
            now = time.monotonic()
            self._busy = bool(taken) and now - self._took_at < IN_A_ROW + self._way
            if taken:
                self._took_at = now
            return taken

    def _share(self, limit: int) -> int:
        """One half of what may be held at most, so that it runs while the server sends the other."""
        return limit if limit < SMALLEST_SPLIT else min(-(-limit // 2), LARGEST_SHARE)

    # -- consumers -------------------------------------------------------------------------------------------------

    def kind(self, queue: str) -> Kind:
        """How messages of a queue come here."""
        if queue not in self._kinds:
            spec = self._topology.spec(queue)
            single = spec.arguments.get("x-single-active-consumer")
            self._kinds[queue] = Kind.STAYS if single else Kind.FETCHED if spec.auto_delete else Kind.PUSHED
        return self._kinds[queue]

    def follow(self, queues: Sequence[str], most: int) -> None:
        """Have as many messages pushed as the owner may hold, all queues together.

        Args:
            queues: that it serves now.
            most: what it may hold, in numbers.  With less than one for each queue only those are served whose consumers stay.

        Raises:
            StoreUnavailable: see there.
        """
        with self._connection.lock:
            self._drop_others(queues)
            share = most // len(queues)
            held = self._leases.count_unacked() // len(queues)
            for queue in queues:
                kind = self.kind(queue)
                if kind is Kind.STAYS and queue not in self._consumers:
                    self._open(queue, STANDING_PREFETCH)
                elif kind is Kind.PUSHED and share:
                    self._adjust(queue, share, held)

    def _drop_others(self, queues: Sequence[str]) -> None:
        others = [consumer for queue, consumer in self._consumers.items() if queue not in queues]
        if others:
            self._end(others)

    def _adjust(self, queue: str, wanted: int, held: int) -> None:
        consumer = self._consumers.get(queue)
        if consumer is None:
            if held < wanted:
                self._open(queue, wanted - held)
        elif consumer.prefetch * 2 <= wanted and self._busy:
            self._replace(consumer, min(wanted, consumer.prefetch * GROWTH))
        elif consumer.prefetch > SHRINKING * wanted:
            self._replace(consumer, wanted - held)

    def _replace(self, consumer: _Consumer, prefetch: int) -> None:
        """Without a moment in which there is none, and without waiting.  What the old one has brought, or is about to, is kept."""
        if prefetch > 0:
            self._open(consumer.queue, prefetch)
        else:
            del self._consumers[consumer.queue]
        self._connection.post(methods.cancel(consumer.tag, wait=False))

    def _open(self, queue: str, prefetch: int) -> None:
        self._topology.need(queue)
        if queue not in self._queues:
            self._queues.append(queue)
        self._serial += 1
        tag = f"{self._queues.index(queue)}.{self._serial}"
        try:
            self._connection.call(methods.prefetch(prefetch), methods.consume(queue, tag))
        except ChannelClosed as error:
            if error.code == 404:  # somebody has deleted the queue
                self._topology.forget()
            raise
        self._consumers[queue] = _Consumer(tag, queue, prefetch)

    # -- at rest ---------------------------------------------------------------------------------------------------

    def covers(self, queues: Sequence[str]) -> bool:
        """Whether each of these queues has a consumer, as far as it may have one."""
        return all(queue in self._consumers for queue in queues if self.kind(queue) is not Kind.FETCHED)

    def load_left(self) -> float:
        """Seconds until what has come lately counts as no load any more; 0: it does already."""
        return max(0.0, self._took_at + LOAD_ENDS + self._way - time.monotonic())

    @property
    def _way(self) -> float:
        return ROUND_TRIPS * self.round_trip

    def listen(self, queues: Sequence[str], room: int, *, quiet: bool) -> int | None:
        """There is nothing to do: have the next messages pushed.

        Args:
            queues: that the owner serves.
            room: how many can start at once.
            quiet: whether nothing has come for a while, so that consumers are to bring no more than that.

        Returns:
            A file descriptor that can be read when something has come; ``None`` if something has already.
        """
        with self._connection.lock:
            self._drop_others(queues)
            wanted = max(1, room // len(queues))
            over = quiet and not self.load_left()
            for queue in queues:
                consumer, kind = self._consumers.get(queue), self.kind(queue)
                if consumer is None and kind is not Kind.FETCHED:
                    self._open(queue, wanted if kind is Kind.PUSHED else STANDING_PREFETCH)
                elif consumer is not None and kind is Kind.PUSHED:
                    credit = consumer.prefetch - self._leases.outstanding(consumer.tag.encode())
                    if credit < wanted or (over and credit > wanted):
                        self._replace(consumer, wanted)
            self._connection.ensure()
            if self.waiting or not self.covers(queues):
                return None
            self._listening = True
            return self._connection.fileno()

    def withdraw(self, *, freed: int = 0, for_good: bool = False) -> None:
        """The owner can take no more for now: give back what is not leased, and have no more pushed.

        Args:
            freed: how many messages are about to be acknowledged, which would make room for others.
            for_good: consumers that would stay end as well.
        """
        with self._connection.lock, suppress(StoreUnavailable):  # which gives everything back, too
            ending = [each for each in self._consumers.values() if for_good or self.kind(each.queue) is not Kind.STAYS]
            waiting = any(self._waiting.get(each.queue) for each in ending) or self._is_late()
            if for_good or waiting or not all(self._is_used_up(each, freed) for each in ending):
                self._end(ending)

    def _is_late(self) -> bool:
        """Whether something has come from a consumer that has ended: quorum queues push on for a moment."""
        return any(waiting and queue not in self._consumers for queue, waiting in self._waiting.items())

    def _is_used_up(self, consumer: _Consumer, freed: int) -> bool:
        return self._leases.outstanding(consumer.tag.encode()) - freed >= consumer.prefetch

    def _end(self, consumers: Sequence[_Consumer]) -> None:
        for consumer in consumers:
            self._consumers.pop(consumer.queue, None)
        if consumers:
            self._connection.call(*(methods.cancel(consumer.tag) for consumer in consumers))
        # Classic queues have nothing on its way any more.
        back = []
        for queue, waiting in self._waiting.items():
            if queue not in self._consumers:
                back += [got.tag for got in waiting]
                waiting.clear()
        self._connection.send(self._leases.requeue(back))
