"""The contract of :mod:`celeriac.broker`, on RabbitMQ.

A lease is an unacknowledged delivery of this process's consuming connection, and an entry in its owner's note.  Publishing has a
connection of its own: the server stops reading from one that publishes while its memory or disk alarm is on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from celeriac.backend import Backend
from celeriac.broker import Broker, DeadMessage, Depth, Listening
from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.dead import DeadLetters
from celeriac.brokers.rabbitmq.delays import Delays
from celeriac.brokers.rabbitmq.keeper import Keeper
from celeriac.brokers.rabbitmq.methods import declare_queue, delete_queue
from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.brokers.rabbitmq.owners import Owners, beat_entry
from celeriac.brokers.rabbitmq.publisher import Publisher, goes_back_unchanged
from celeriac.brokers.rabbitmq.topology import Specs, Topology, plain_queue
from celeriac.brokers.rabbitmq.turns import Turns
from celeriac.errors import StoreUnavailable
from celeriac.message import Bound, Delivery, Message
from celeriac.outcome import Outcome, Settlement

FENCE_SECONDS = 1.0
"""How long a proof that the owner was not condemned is good for.  Others condemn only who was silent for much longer."""

QUICK_POLL, SLOW_POLL = 0.001, 0.01
"""Seconds between two looks of :meth:`RabbitBroker.wait`, soon after there was something and later.  Owners that subscribe do not
need it."""


class RabbitBroker(Broker):
    """Queues, leases and dead letters in RabbitMQ."""

    writes_results = False
    zero_first = False
    keeps_place = False
    keeps_leases = False
    promotes = False
    shows_age = False
    counts_bounds = False
    pushes = True
    call_round_trips = 4

    dead_page = 1_000_000
    # Looking at one dead letter takes all of them from their queue and gives them back.

    def __init__(self, options: RabbitOptions, specs: Specs = plain_queue) -> None:
        """Connects at first use.

        Args:
            options: where the server is.
            specs: tells how the app's queues are declared.
        """
        self.options = options
        self.url = options.url
        self._publishing = Connection(options, "publishes")
        self._topology = Topology(self._publishing, specs)
        self._delays = Delays(self._topology, self._publishing)
        self._dead = DeadLetters(options, self._publishing)
        self._owners = Owners(options, self._publishing)
        self._publisher = Publisher(self._publishing, self._topology, self._delays, self._dead)
        self._turns = Turns(options, self._publishing, self._topology, self._owners, self._publisher)
        self._tended: tuple[str, ...] = ()
        """Queues of the owners that this process beats for."""
        self._poll = QUICK_POLL
        self._keeper: Keeper | None = None

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """See :class:`Broker`."""
        connections = (self._turns.consuming, self._publishing, self._turns.watching, self._owners)
        return sum(each.round_trips for each in connections)

    # -- sending ---------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`Broker.publish`.  Not all or nothing: after an error some may have been sent."""
        if messages:
            self._publisher.publish(messages)

    def publish_within(self, messages: Sequence[Message], bounds: Mapping[str, Bound]) -> None:
        """See :meth:`Broker.publish_within`.

        The server bounds a queue itself, by the arguments that it was declared with: ``x-max-length``, and ``x-overflow``, which
        is ``drop-head`` (the oldest go) unless it says ``reject-publish``.  What was refused is told; the others were sent.
        """
        if any(bound.drop_oldest for bound in bounds.values()):
            self._dead.need()  # what goes to an exchange that is not there is gone
        self.publish(messages)

    def prepare(self, queues: Sequence[str]) -> None:
        """See :meth:`Broker.prepare`."""
        self._topology.need(*queues)

    # -- lease, settle, release ------------------------------------------------------------------------------------

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`."""
        return self._turns.turn(owner, outcomes, queues, limit)

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""
        return self._turns.release(owner, tags)

    def subscribe(self, owner: str, wake: Callable[[], None]) -> None:
        """See :meth:`Broker.subscribe`.  One owner of a process can."""
        self._turns.subscribe(owner, wake)

    def listen(self, owner: str, queues: Sequence[str], room: int, *, quiet: bool) -> Listening:
        """See :meth:`Broker.listen`."""
        return self._turns.listen(queues, room, quiet=quiet)

    def withdraw(self, owner: str, queues: Collection[str], *, must: bool) -> bool:
        """See :meth:`Broker.withdraw`."""
        return self._turns.withdraw(queues, must=must)

    def tend(self) -> None:
        """Keep connections alive, and what others know of our leases up to date, while a body runs."""
        self._turns.tend()

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`."""
        deadline = time.monotonic() + timeout
        methods = [declare_queue(queue, passive=True) for queue in queues]
        while True:
            try:
                if any(answer.message_count for answer in self._turns.watching.call(*methods)):
                    self._poll = QUICK_POLL
                    return True
            except ChannelClosed:
                self._topology.forget()
                self._topology.need(*queues)
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, self._poll))
            self._poll = min(self._poll * 1.5, SLOW_POLL)

    def alive(self, owners: Sequence[str]) -> set[str]:
        """See :meth:`Broker.alive`."""
        return self._owners.alive(owners) if owners else set()

    # -- owners ----------------------------------------------------------------------------------------------------

    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """See :meth:`Broker.register`."""
        self._turns.consuming.beats = self._publishing.beats = True
        self._topology.need(*queues)
        for queue in queues:  # producers may have no right to
            self._delays.need(queue)
        self._dead.need()
        if self._keeper is None:
            self._keeper = Keeper(self.tend)
        self._owners.add(owner, queues, ttl)
        self._turns.served[owner] = tuple(queues)

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`."""
        if not owners:
            return []
        self._tended = tuple(queues)
        published = self._publishing.publish([beat_entry(owner, ttl) for owner in owners])
        lost = {key.removeprefix("beat:") for _, key in published.unroutable}
        return [owner for owner in owners if owner in lost]

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`."""
        with self._turns.lock:
            if self._turns.holds(owner):
                return False
            self._turns.unsubscribe(owner)
            if not self._owners.remove(owner):
                return False
            self._turns.forget(owner)
            return True

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`."""
        return self._owners.expired(limit)

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`."""
        self._owners.condemn(owner)
        self._turns.doubt(owner)

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`.  An owner of this process is asked itself: nobody knows better."""
        if self._turns.knows(owner):
            return self._turns.leases.deliveries(owner)[:limit]
        return sorted(self._owners.note(owner))[:limit]

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`.

        What goes back unchanged is only taken off the note: RabbitMQ itself puts it back in its place when the connection of
        the condemned is gone.
        """
        with self._turns.lock, self._owners.locked():
            noted = {delivery.tag: delivery for delivery in self._owners.read(owner)}
            fresh: dict[int, Outcome] = {}
            for outcome in outcomes:
                if outcome.delivery.tag in noted:
                    fresh.setdefault(outcome.delivery.tag, outcome)
            self._publisher.follow_up(owner, fresh.values())
            settled = [noted[tag].raw for tag, outcome in fresh.items() if not goes_back_unchanged(outcome)]
            self._owners.rewrite(owner, [noted[tag] for tag in noted if tag not in fresh], settled)
            self._publisher.forget(owner, fresh)
            return Settlement(len(outcomes) - len(fresh))

    # -- schedule --------------------------------------------------------------------------------------------------

    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """See :meth:`Broker.promote`.  RabbitMQ moves due messages itself."""
        return 0, None

    def first_scheduled(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """See :meth:`Broker.first_scheduled`.  The time is the earliest that it can be due: RabbitMQ tells no more."""
        return self._delays.first(queue, limit)

    # -- looking ---------------------------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """See :meth:`Broker.depth`.

        RabbitMQ does not tell for which queue a delayed message is: all of them are counted at the first queue.
        """
        if not queues:
            return []
        self._topology.need(*queues)
        answers = self._publishing.call(*(declare_queue(queue, passive=True) for queue in queues))
        consumers = self._owners.consumers(queues)
        delayed = self._delays.count()
        return [
            Depth(queue, answer.message_count, 0 if number else delayed, consumers[queue], None)
            for number, (queue, answer) in enumerate(zip(queues, answers, strict=True))
        ]

    def leased_count(self) -> int:
        """See :meth:`Broker.leased_count`."""
        return self._owners.note_count()

    def purge(self, queue: str) -> int:
        """See :meth:`Broker.purge`.  Delayed messages stay: RabbitMQ does not tell for which queue they are."""
        return self._publisher.purge(queue)

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead_count(self) -> int:
        """See :meth:`Broker.dead_count`."""
        return self._dead.count()

    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """See :meth:`Broker.dead_letters`."""
        return self._dead.newest(limit, before)

    def dead_letter(self, id: str) -> DeadMessage | None:
        """See :meth:`Broker.dead_letter`."""
        return self._dead.find(id)

    def replay(self, id: str, message: Message | None = None) -> bool:
        """See :meth:`Broker.replay`."""
        with self._dead.claim([id]) as letters:
            for letter in letters:
                dead = letter.message()
                self._publisher.publish([message or Message(dead.queue, wire.as_copy(dead.raw))])
            return bool(letters)

    def discard(self, ids: Iterable[str]) -> int:
        """See :meth:`Broker.discard`."""
        wanted = set(ids)
        if not wanted:
            return 0
        with self._dead.claim(wanted) as letters:
            return len(letters)

    # -- the rest --------------------------------------------------------------------------------------------------

    def shares_store(self, backend: Backend | None) -> bool:
        """See :meth:`Broker.shares_store`."""
        return False

    def ping(self) -> None:
        """See :meth:`Broker.ping`."""
        self._dead.need()
        self._dead.count()

    def close(self) -> None:
        """See :meth:`Broker.close`."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        with suppress(StoreUnavailable):
            self._delete_with_its_last_owner()
        for connection in (self._turns.consuming, self._publishing, self._turns.watching):
            connection.close()

    def _delete_with_its_last_owner(self) -> None:
        """Delete what stock Celery's workers would have had the server delete: as consumers come and go here, it cannot tell."""
        going = [queue for queue in self._tended if self._topology.spec(queue).auto_delete]
        self._tended = ()
        if going:
            served = self._owners.served()
            for queue in going:
                if queue not in served:
                    self._publishing.call(delete_queue(queue, if_unused=True))
