"""Lease, settle and release, with the notes that go with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from celeriac.broker import Listening
from celeriac.brokers.rabbitmq import notes
from celeriac.brokers.rabbitmq.confirms import Ahead
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.fetching import Fetching
from celeriac.brokers.rabbitmq.intake import LONGEST_REST, Intake
from celeriac.brokers.rabbitmq.leases import Lease, Leases
from celeriac.brokers.rabbitmq.methods import declare_queue
from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.brokers.rabbitmq.owners import Owners, note_entry
from celeriac.brokers.rabbitmq.publisher import Publisher, goes_back_unchanged
from celeriac.brokers.rabbitmq.stream import Kind, Stream
from celeriac.brokers.rabbitmq.suspects import Suspects
from celeriac.brokers.rabbitmq.topology import Topology
from celeriac.errors import OwnerLost, StoreUnavailable
from celeriac.message import Delivery
from celeriac.outcome import Outcome, Settlement

FENCE_SECONDS = 1.0
"""How long a proof that the owner was not condemned is good for.  Others condemn only who was silent for much longer."""


class Turns:
    """What the owners of this process lease and settle."""

    def __init__(
        self, options: RabbitOptions, publishing: Connection, topology: Topology, owners: Owners, publisher: Publisher
    ) -> None:
        self.consuming = Connection(options, "leases")
        """Messages come by it and are acknowledged on it; nothing is published."""
        self.watching = Connection(options, "waits")
        """For questions that may cost the channel."""
        self.lock = threading.RLock()
        """Held for the length of a turn."""
        self.leases = Leases()
        self.served: dict[str, tuple[str, ...]] = {}
        """Queues of each owner of this process."""
        self._publishing = publishing
        self._topology = topology
        self._owners = owners
        self._publisher = publisher
        self._suspects = Suspects(owners)
        self._fetching = Fetching(self.consuming, topology, self.leases, self._suspects, self._reconnect)
        self._fenced_off: set[str] = set()
        self._proved: dict[str, float] = {}
        """When each owner of this process was last known not to be condemned; monotonic clock."""
        self._noted_at = -1.0
        self._intake: Intake | None = None

    def holds(self, owner: str) -> bool:
        """Whether an owner of this process has leases."""
        return owner in self.served and owner not in self._fenced_off and bool(self.leases.of(owner))

    def knows(self, owner: str) -> bool:
        """Whether nobody knows better what an owner holds."""
        return owner in self._proved

    def doubt(self, owner: str) -> None:
        """An owner may have been condemned."""
        self._proved.pop(owner, None)

    def unsubscribe(self, owner: str) -> None:
        """Nothing more is to be pushed to an owner."""
        if self._intake is not None and self._intake.owner == owner:
            self._intake.stream.withdraw(for_good=True)
            self._intake = None

    def forget(self, owner: str) -> None:
        """An owner is gone."""
        self.leases.forget(owner)
        self.served.pop(owner, None)
        self._fenced_off.discard(owner)

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`."""
        with self.lock:
            self._reconnect()
            if self._intake is not None and self._intake.owner == owner:
                return self._turn_pushed(self._intake, outcomes, queues, limit)
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

    def _turn_pushed(
        self, intake: Intake, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """For an owner that has messages pushed: one note says what it had settled and what it gets."""
        owner, stream = intake.owner, intake.stream
        held = self._held(owner, prove=bool(outcomes) or not stream.waiting)
        fresh = self._fresh(held, outcomes)
        if fresh:
            self._publisher.follow_up(owner, fresh.values())
        if not limit:
            stream.withdraw(freed=len(fresh))
        most = len(held) - len(fresh) + limit
        leased = [self.leases.add(owner, queue, got) for queue, got in intake.take(queues, limit)]
        epoch, note, asked_at = self.consuming.epoch, None, time.monotonic()
        if leased or fresh:
            with self._noting(owner, leased):
                note = self._publish_note(owner, without=fresh)
        if fresh:
            # Before the note is confirmed: meanwhile the server sends the next ones.
            self._acknowledge(owner, held, fresh)
        try:
            if leased:
                leased = self._when_noted(owner, leased, note, epoch)
                stream.round_trip = time.monotonic() - asked_at
            if limit:
                leased += self._more(intake, queues, most, limit - len(leased), idle=not leased)
        except StoreUnavailable:
            leased = [delivery for delivery in leased if delivery.tag in held]
            if not outcomes and not leased:
                raise
            # What was settled is settled; the next turn tells that the server is away.
        return Settlement(len(outcomes) - len(fresh)), leased

    @contextmanager
    def _noting(self, owner: str, leased: Iterable[Delivery]) -> Iterator[None]:
        """What was leased goes back if its note fails."""
        try:
            yield
        except BaseException:
            self._return_leases(owner, leased)
            raise

    def _when_noted(self, owner: str, leased: list[Delivery], note: Ahead | None, epoch: int) -> list[Delivery]:
        """Wait until the server has the note, before any of these start; return those that are ours then."""
        with self._noting(owner, leased):
            self._confirm_note(owner, note)
        if self.consuming.still(epoch):
            return leased
        # The server has given them to others, who may have looked before the note was there.
        held = self.leases.of(owner)
        for delivery in leased:
            held.pop(delivery.tag, None)
        self._publish_note(owner)
        return []

    def _more(self, intake: Intake, queues: Sequence[str], most: int, limit: int, *, idle: bool) -> list[Delivery]:
        """Have the next messages pushed, and fetch what cannot be."""
        stream, owner = intake.stream, intake.owner
        if not queues:
            stream.withdraw(for_good=True)
            return []
        if intake.is_careful:
            stream.withdraw()
            return self._lease(owner, queues, limit) if idle else []
        if stream.waiting > 2 * most and self._are_awaited(stream.waiting_queues()):
            stream.withdraw()  # they turned out to be more work than was thought
            return []
        stream.follow(queues, most)
        if most >= len(queues):
            # Those whose messages are not pushed in their turn; each is the first once.
            asked = [queue for queue in queues if stream.kind(queue) is Kind.FETCHED and (idle or queue == queues[0])]
        elif idle and not stream.covers(queues):
            asked = [queue for queue in queues if stream.kind(queue) is not Kind.STAYS]
        else:
            if not idle:
                stream.withdraw()  # a consumer for each queue would bring more than can start
            asked = [queue for queue in queues if stream.kind(queue) is Kind.FETCHED and idle]
        return self._lease(owner, asked, limit) if asked and limit > 0 else []

    def subscribe(self, owner: str, wake: Callable[[], None]) -> None:
        """See :meth:`Broker.subscribe`.  One owner of a process can."""
        if self._intake is None:
            stream = Stream(self.consuming, self._topology, self.leases, wake)
            self._intake = Intake(owner, stream, self._suspects, self.consuming, self.leases)

    def listen(self, queues: Sequence[str], room: int, *, quiet: bool) -> Listening:
        """See :meth:`Broker.listen`."""
        intake = self._intake
        if intake is None or not queues:
            return Listening(None, LONGEST_REST)
        with self.lock:
            return intake.listen(queues, room, quiet=quiet)

    def withdraw(self, queues: Collection[str], *, must: bool) -> bool:
        """See :meth:`Broker.withdraw`."""
        if self._intake is None:
            return True
        with self.lock:
            held = {*queues, *self._intake.stream.waiting_queues()}
            if not must and held and not self._are_awaited(held):
                return False
            self._intake.stream.withdraw()
            return True

    def _are_awaited(self, queues: Iterable[str]) -> bool:
        """Whether somebody waits for messages of one of these queues.  Nobody does while there are some to be had: whoever is
        idle has a consumer, which would have got them.
        """
        try:
            answers = self.watching.call(*(declare_queue(queue, passive=True) for queue in queues))
        except StoreUnavailable:
            return True
        return not all(answer.message_count for answer in answers)

    def _held(self, owner: str, *, prove: bool = True) -> dict[int, Lease]:
        """An owner's leases, if it is ours and was not condemned."""
        if owner in self._fenced_off or owner not in self.served:
            raise OwnerLost(f"{owner} is not registered, or its leases were taken over")
        if prove and time.monotonic() - self._proved.get(owner, float("-inf")) > FENCE_SECONDS:
            self._write_note(owner)
        return self.leases.of(owner)

    @staticmethod
    def _fresh(held: dict[int, Lease], outcomes: Sequence[Outcome]) -> dict[int, Outcome]:
        """Outcomes of what is leased, one for each tag."""
        fresh: dict[int, Outcome] = {}
        for outcome in outcomes:
            tag = outcome.delivery.tag
            if tag in held and tag not in fresh and held[tag].delivery.raw == outcome.delivery.raw:
                fresh[tag] = outcome
        return fresh

    def _settle(self, owner: str, held: dict[int, Lease], outcomes: Sequence[Outcome]) -> Settlement:
        fresh = self._fresh(held, outcomes)
        self._publisher.follow_up(owner, fresh.values())
        self._publish_note(owner, without=fresh)
        self._acknowledge(owner, held, fresh)
        return Settlement(len(outcomes) - len(fresh))

    def _acknowledge(self, owner: str, held: dict[int, Lease], fresh: dict[int, Outcome]) -> None:
        """What follows these outcomes is sent, and the note does not list them any more."""
        returned = [held[tag] for tag, outcome in fresh.items() if goes_back_unchanged(outcome)]
        settled = [held[tag] for tag, outcome in fresh.items() if not goes_back_unchanged(outcome)]
        detached = [lease.delivery.raw for lease in settled if lease.epoch != self.consuming.epoch]
        if detached:
            self._owners.remember_settled(detached)
        with self.consuming.lock:
            self.consuming.send(self.leases.acks(settled) + self.leases.requeue_leases(returned))
        # Only now: whatever failed so far is done again.
        for tag in fresh:
            del held[tag]
        self._publisher.forget(owner, fresh)

    def _lease(self, owner: str, queues: Sequence[str], limit: int) -> list[Delivery]:
        leased: list[Delivery] = []
        for queue in queues:
            if len(leased) < limit:
                leased += self._fetching.take(owner, queue, limit - len(leased))
        if leased:
            with self._noting(owner, leased):
                self._write_note(owner)
        return leased

    def _return_leases(self, owner: str, deliveries: Iterable[Delivery]) -> None:
        held = self.leases.of(owner)
        returned = [held.pop(delivery.tag) for delivery in deliveries if delivery.tag in held]
        with suppress(StoreUnavailable):  # then the server has taken them back itself
            self.consuming.send(self.leases.requeue_leases(returned))

    def _write_note(self, owner: str) -> None:
        """Write down what an owner holds, and wait until the server has it.

        Raises:
            OwnerLost: it was condemned.
        """
        self._confirm_note(owner, self._publish_note(owner))

    def _publish_note(self, owner: str, *, without: Container[int] = ()) -> Ahead | None:
        """Write down what an owner holds, without some tags; return what is to be confirmed."""
        if self._publishing.blocked is not None:
            return None  # its alarm is on: draining the queues is what helps, so it goes on without
        held = [delivery for delivery in self.leases.deliveries(owner) if delivery.tag not in without]
        return self._publishing.publish_ahead(note_entry(owner, notes.encode(held)))

    def _confirm_note(self, owner: str, note: Ahead | None) -> None:
        if note is None:
            return
        published = self._publishing.confirmed(note)
        if published.unroutable:
            self._fence_off(owner)
            raise OwnerLost(f"{owner} is not registered, or its leases were taken over")
        if published.refused:
            self._publishing.renew()
            raise StoreUnavailable(f"RabbitMQ did not take the note of what {owner} holds: its queue is away for now")
        self._proved[owner] = time.monotonic()

    def _fence_off(self, owner: str) -> None:
        self._fenced_off.add(owner)
        self._proved.pop(owner, None)
        returned = self.leases.forget(owner)
        with suppress(StoreUnavailable):
            self.consuming.send(self.leases.requeue_leases(returned))

    def _reconnect(self) -> None:
        """Connect if that is needed.  With a new connection the server has taken back what came by the old one, and may have
        lost the notes.
        """
        self.consuming.ensure()
        doubtful = self.leases.on_epoch(self.consuming.epoch)
        self._publishing.ensure()
        if self._noted_at != self._publishing.connected_at:
            self._noted_at = self._publishing.connected_at
            for owner in list(self.served):
                if owner not in self._fenced_off and self.leases.of(owner):
                    self._write_note(owner)
        if doubtful:
            self._owners.remember_settled(doubtful)

    def tend(self) -> None:
        """Keep connections alive, and what others know of our leases up to date, while a body runs."""
        alive = self.consuming.tend() and self._publishing.tend()
        if alive or not any(self.leases.held.values()) or not self.lock.acquire(blocking=False):
            return
        try:
            self._reconnect()
        finally:
            self.lock.release()

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""
        with self.lock:
            held = self.leases.of(owner)
            found = [tag for tag in tags if tag in held]
            if not found or owner in self._fenced_off or owner not in self.served:
                return 0
            self._reconnect()
            try:
                self._confirm_note(owner, self._publish_note(owner, without=found))
            except OwnerLost:
                return 0
            self.consuming.send(self.leases.requeue_leases([held[tag] for tag in found]))
            for tag in found:
                del held[tag]
            return len(found)
