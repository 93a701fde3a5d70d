"""The contract of :mod:`celeriac.broker`, on RabbitMQ.

A lease is an unacknowledged delivery of this process's consuming connection, and an entry in its owner's note.  Publishing has a
connection of its own: the server stops reading from one that publishes while its memory or disk alarm is on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress

from celeriac.backend import Backend
from celeriac.broker import Broker, DeadMessage, Depth
from celeriac.brokers.rabbitmq import notes, wire
from celeriac.brokers.rabbitmq.connection import ChannelClosed, Connection
from celeriac.brokers.rabbitmq.dead import DeadLetters
from celeriac.brokers.rabbitmq.keeper import Keeper
from celeriac.brokers.rabbitmq.leases import Lease, Leases
from celeriac.brokers.rabbitmq.methods import declare_queue
from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.brokers.rabbitmq.owners import Owners, beat_entry, note_entry
from celeriac.brokers.rabbitmq.publisher import Publisher, goes_back_unchanged
from celeriac.brokers.rabbitmq.suspects import PAUSE, Suspects
from celeriac.brokers.rabbitmq.topology import Delays, Specs, Topology, plain_queue
from celeriac.errors import OwnerLost, StoreUnavailable
from celeriac.message import Bound, Delivery, Message
from celeriac.outcome import Outcome, Settlement

FENCE_SECONDS = 1.0
"""How long a proof that the owner was not condemned is good for.  Others condemn only who was silent for much longer."""

MOST_HELD = 200
"""How many messages that others hold are looked past in one lease."""

QUICK_POLL, SLOW_POLL = 0.001, 0.01
"""Seconds between two looks at the queues while a whole node is idle, soon after there was something and later.  RabbitMQ tells
of a message only by handing it out."""


class RabbitBroker(Broker):
    """Queues, leases and dead letters in RabbitMQ."""

    writes_results = False
    zero_first = False
    keeps_place = False
    keeps_leases = False
    promotes = False
    shows_age = False
    counts_bounds = False
    call_round_trips = 4
    best_batch = 100

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
        self._consuming = Connection(options, "leases")
        self._publishing = Connection(options, "publishes")
        self._watching = Connection(options, "waits")
        self._topology = Topology(self._publishing, specs)
        self._delays = Delays(self._topology, self._publishing)
        self._dead = DeadLetters(options, self._publishing)
        self._owners = Owners(options, self._publishing)
        self._publisher = Publisher(self._publishing, self._topology, self._delays, self._dead)
        self._suspects = Suspects(self._owners)
        self._leases = Leases()
        self._turning = threading.RLock()
        self._fenced_off: set[str] = set()
        self._proved: dict[str, float] = {}
        """When each owner of this process was last known not to be condemned; monotonic clock."""
        self._served: dict[str, tuple[str, ...]] = {}
        self._noted_at = -1.0
        self._poll = QUICK_POLL
        self._keeper: Keeper | None = None

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """See :class:`Broker`."""
        connections = (self._consuming, self._publishing, self._watching, self._owners)
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
        with self._turning:
            self._reconnect()
            held = self._held(owner)
            settlement, leased = Settlement(), []
            if outcomes:
                settlement = self._settle(owner, held, outcomes)
            if limit:
                try:
                    leased = self._lease(owner, queues, limit)
                except StoreUnavailable:
                    if not outcomes:
                        raise
                    # What was settled is settled; the next turn tells that the server is away.
            return settlement, leased

    def _held(self, owner: str) -> dict[int, Lease]:
        """An owner's leases, if it is ours and was not condemned."""
        if owner in self._fenced_off or owner not in self._served:
            raise OwnerLost(f"{owner} is not registered, or its leases were taken over")
        if time.monotonic() - self._proved.get(owner, float("-inf")) > FENCE_SECONDS:
            self._write_note(owner)
        return self._leases.of(owner)

    def _settle(self, owner: str, held: dict[int, Lease], outcomes: Sequence[Outcome]) -> Settlement:
        fresh: dict[int, Outcome] = {}
        for outcome in outcomes:
            tag = outcome.delivery.tag
            if tag in held and tag not in fresh and held[tag].delivery.raw == outcome.delivery.raw:
                fresh[tag] = outcome
        self._publisher.follow_up(owner, fresh.values())
        returned = [held[tag] for tag, outcome in fresh.items() if goes_back_unchanged(outcome)]
        settled = [held[tag] for tag, outcome in fresh.items() if not goes_back_unchanged(outcome)]
        detached = [lease.delivery.raw for lease in settled if lease.epoch != self._consuming.epoch]
        if detached:
            self._owners.remember_settled(detached)
        self._write_note(owner, without=fresh, wait=False)
        self._consuming.send(self._leases.acks(settled) + self._leases.requeue_leases(returned))
        # Only now: whatever failed so far is done again.
        for tag in fresh:
            del held[tag]
        self._publisher.forget(owner, fresh)
        return Settlement(len(outcomes) - len(fresh))

    def _lease(self, owner: str, queues: Sequence[str], limit: int) -> list[Delivery]:
        leased: list[Delivery] = []
        for queue in queues:
            if len(leased) < limit:
                leased += self._take(owner, queue, limit - len(leased))
        if leased:
            try:
                self._write_note(owner)
            except BaseException:
                self._return_leases(owner, [delivery.tag for delivery in leased])
                raise
        return leased

    def _take(self, owner: str, queue: str, limit: int) -> list[Delivery]:
        """Lease from one queue.  What others hold is looked past and given back."""
        self._topology.need(queue)
        taken: list[wire.Gotten] = []
        held: list[int] = []
        epoch = self._consuming.epoch
        while len(taken) < limit and len(held) < MOST_HELD:
            gotten = self._get(queue, limit - len(taken))
            if self._consuming.epoch != epoch:  # what came before is the server's again
                epoch = self._consuming.epoch
                taken, held = [], []
            if not gotten:
                break
            try:
                clear, drop, hold = self._suspects.sift(gotten, self._consuming)
            except BaseException:  # nobody knows whose they are
                with suppress(StoreUnavailable):
                    tags = [got.tag for got in (*taken, *gotten)]
                    self._consuming.send(self._leases.requeue([*held, *tags]))
                raise
            taken += clear
            held += hold
            self._consuming.send(self._leases.drop(drop))
            if not hold and not drop:
                break
        if held:
            if not taken:
                time.sleep(PAUSE)
            self._consuming.send(self._leases.requeue(held))
        return [self._leases.add(owner, queue, got) for got in taken]

    def _get(self, queue: str, limit: int) -> list[wire.Gotten]:
        try:
            gotten = self._consuming.get(queue.encode(), limit)
        except ChannelClosed as error:
            if error.code != 404:
                raise
            self._topology.forget()  # somebody has deleted the queue
            self._topology.need(queue)
            gotten = []
        self._reconnect()
        self._leases.taken(gotten)
        return gotten

    def _return_leases(self, owner: str, tags: Iterable[int]) -> None:
        held = self._leases.of(owner)
        returned = [held.pop(tag) for tag in tags if tag in held]
        with suppress(StoreUnavailable):  # then the server has taken them back itself
            self._consuming.send(self._leases.requeue_leases(returned))

    def _write_note(self, owner: str, *, without: Container[int] = (), wait: bool = True) -> None:
        """Write down what an owner holds, without some tags.

        Raises:
            OwnerLost: it was condemned.
        """
        if self._publishing.blocked is not None:
            return  # its alarm is on: draining the queues is what helps, so it goes on without
        held = [delivery for delivery in self._leases.deliveries(owner) if delivery.tag not in without]
        entry = note_entry(owner, notes.encode(held))
        published = self._publishing.publish([entry], wait=wait)
        if published.unroutable:
            self._fence_off(owner)
            raise OwnerLost(f"{owner} is not registered, or its leases were taken over")
        if wait:
            self._proved[owner] = time.monotonic()

    def _fence_off(self, owner: str) -> None:
        self._fenced_off.add(owner)
        self._proved.pop(owner, None)
        returned = self._leases.forget(owner)
        with suppress(StoreUnavailable):
            self._consuming.send(self._leases.requeue_leases(returned))

    def _reconnect(self) -> None:
        """Connect if that is needed.  With a new connection the server has taken back what came by the old one, and may have
        lost the notes.
        """
        self._consuming.ensure()
        doubtful = self._leases.on_epoch(self._consuming.epoch)
        self._publishing.ensure()
        if self._noted_at != self._publishing.connected_at:
            self._noted_at = self._publishing.connected_at
            for owner in list(self._served):
                if owner not in self._fenced_off and self._leases.of(owner):
                    self._write_note(owner)
        if doubtful:
            self._owners.remember_settled(doubtful)

    def tend(self) -> None:
        """Keep connections alive, and what others know of our leases up to date, while a body runs."""
        alive = self._consuming.tend() and self._publishing.tend()
        if alive or not any(self._leases.held.values()) or not self._turning.acquire(blocking=False):
            return
        try:
            self._reconnect()
        finally:
            self._turning.release()

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""
        with self._turning:
            held = self._leases.of(owner)
            found = [tag for tag in tags if tag in held]
            if not found or owner in self._fenced_off or owner not in self._served:
                return 0
            self._reconnect()
            try:
                self._write_note(owner, without=found)
            except OwnerLost:
                return 0
            self._consuming.send(self._leases.requeue_leases([held[tag] for tag in found]))
            for tag in found:
                del held[tag]
            return len(found)

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`."""
        deadline = time.monotonic() + timeout
        methods = [declare_queue(queue, passive=True) for queue in queues]
        while True:
            try:
                if any(answer.message_count for answer in self._watching.call(*methods)):
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
        self._consuming.beats = self._publishing.beats = True
        self._topology.need(*queues)
        for queue in queues:  # producers may have no right to
            self._delays.need(queue)
        self._dead.need()
        if self._keeper is None:
            self._keeper = Keeper(self.tend)
        self._owners.add(owner, queues, ttl)
        self._served[owner] = tuple(queues)

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`."""
        if not owners:
            return []
        published = self._publishing.publish([beat_entry(owner, ttl) for owner in owners])
        lost = {key.removeprefix("beat:") for _, key in published.unroutable}
        return [owner for owner in owners if owner in lost]

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`."""
        with self._turning:
            if owner in self._served and owner not in self._fenced_off and self._leases.of(owner):
                return False
            if not self._owners.remove(owner):
                return False
            self._leases.forget(owner)
            self._served.pop(owner, None)
            self._fenced_off.discard(owner)
            return True

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`."""
        return self._owners.expired(limit)

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`."""
        self._owners.condemn(owner)
        self._proved.pop(owner, None)

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`.  An owner of this process is asked itself: nobody knows better."""
        if owner in self._proved:
            return self._leases.deliveries(owner)[:limit]
        return sorted(self._owners.note(owner))[:limit]

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`.

        What goes back unchanged is only taken off the note: RabbitMQ itself puts it back in its place when the connection of
        the condemned is gone.
        """
        with self._turning, self._owners.locked():
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
        for connection in (self._consuming, self._publishing, self._watching):
            connection.close()
