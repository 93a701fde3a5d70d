"""The contract of a broker: what the engine needs from Redis, SQLite and the others in ``brokers/``.

At every instant a message is in exactly one place: a queue, the schedule, one owner's lease, or the dead letters.
Each method moves messages between these places atomically.

An *owner* is one worker slot's process.  It registers once under a name that is never used again, keeps itself alive
with :meth:`Broker.beat`, and holds leases until they are settled, released or rescued.  An owner that was *condemned*
is fenced off: whatever it still settles is refused.

A broker object may be used by several threads of a process.  It must not be carried across a fork: each process makes
its own.  Every method may raise :class:`~celeriac.errors.StoreUnavailable` or :class:`~celeriac.errors.StoreFull`.
After ``StoreUnavailable`` the operation may or may not have happened.  All but ``publish`` and ``lease`` can simply be
called again; after a ``lease`` of unknown fate, :meth:`Broker.leased` tells what is held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from celeriac.backend import Backend
from celeriac.errors import ConfigurationError, StoreUnavailable
from celeriac.keyvalue import Claim, KeyValueStore, Namespace, holder_of
from celeriac.message import Bound, Delivery, Message
from celeriac.outcome import KeyWrite, Outcome, Settlement

NO_BOUNDS: Mapping[str, Bound] = {}

CLAIM_SECONDS = 10.0
"""How long a key is claimed for a message that is not known to be sent yet, where the two are in different stores.  Shorter than a
publish may take, and a second message is sent meanwhile; longer, and a producer that died keeps its key for longer."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much lies in one queue."""

    queue: str
    ready: int
    """Messages that can be leased now, of all priorities."""
    scheduled: int
    """Messages whose time has not come."""
    consumers: int
    """Live owners that serve the queue."""
    oldest_age: float | None
    """Seconds that the next message has waited; ``None`` when the queue is empty or the message does not tell."""
    parked: int = 0
    """Messages that wait beside the queue until a limit lets them in."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Messages of one queue that wait beside it, until whoever parked them takes them out."""

    queue: str
    name: str
    count: int
    """Messages in it; when asking for some, how many."""


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A dead letter as it is kept."""

    id: str
    """Its id among the dead letters: opaque, ordered by age."""
    queue: str
    raw: bytes
    reason: str
    error: str
    task: str
    task_id: str
    traceback: str
    attempts: int
    crashes: int
    worker: str
    at: float
    """When it died: seconds since the epoch."""


class Listening(NamedTuple):
    """How an idle owner learns that a message has come."""

    fd: int | None
    """A file descriptor that can be read then; ``None``: none, look again in time."""
    longest: float
    """Seconds after which to look in any case."""


class Broker(ABC):
    """Queues, schedule, leases and dead letters in one store."""

    url: str
    """Where it is, without password; for people to read."""

    knows_owners: bool = True
    """Whether :meth:`alive` can tell."""

    has_lanes: bool = False
    """Whether messages can be parked beside their queues: settling publishes to :attr:`~celeriac.message.Message.lane`, and
    :meth:`lanes` and :meth:`unpark` work."""

    round_trips: int
    """How many times this object has gone to the store and waited for the answer (an SQL statement or transaction
    that stays in the process counts one).  Tests assert on it."""

    # -- what a store cannot do --------------------------------------------------------------------------------------

    writes_results = True
    """Whether it can be a result store's own broker: see :meth:`shares_store`."""
    zero_first = True
    """Whether priority 0 is the highest, and priorities go before the order of queues.  RabbitMQ has it the other way round,
    and within one queue only."""
    keeps_place = True
    """Whether a message that goes back edited goes to the head of its queue, and a replayed one keeps its priority.  In RabbitMQ
    only an unchanged message keeps its place."""
    keeps_leases = True
    """Whether leases outlive connections.  Where they do not, the store itself gives an unchanged message back when the
    connection of its dead owner is gone, and marks it; see the broker's own pages for how double runs are prevented."""
    promotes = True
    """Whether the schedule is ours to look through.  Where it is not, due messages come into their queues by themselves,
    :meth:`promote` has nothing to do, and :attr:`Depth.scheduled` counts all queues together, at the first one asked for."""
    writes_keys = False
    """Whether there is a key-value store whose keys it writes itself: see :meth:`shares_keys`."""
    shows_age = True
    """Whether :attr:`Depth.oldest_age` can be told without taking the message."""
    call_round_trips = 1
    """Most round trips of one publish, lease or settle, whatever the number of messages."""

    counts_bounds = True
    """Whether :meth:`publish_within` looks at the bounds that it is given.  RabbitMQ goes by its queues' own arguments."""
    best_batch = 1000
    """Most messages that a worker should lease at once: more would keep it waiting for longer than they save."""

    dead_page: int = 50
    """How many dead letters to read at a time.  Each comes with its message, which may have megabytes; a broker that reads all of
    them anyway says more."""

    acknowledges_apart = False
    """Whether an early acknowledgement is a call of its own.  Where it is not, whoever rescues a dead slot knows what had started,
    and nobody else gets what it held meanwhile."""

    pushes = False
    """Whether the store hands messages out unasked: owners :meth:`subscribe` then, and :meth:`listen` when they are idle, and nobody
    needs to :meth:`wait` for them."""

    # -- sending ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> None:
        """Put messages at the tail of their queues, or into the schedule when they are due later.

        All or nothing.  When it returns, the store has accepted them with its configured durability.
        """

    def publish_within(self, messages: Sequence[Message], bounds: Mapping[str, Bound]) -> None:
        """Publish without letting queues grow past their bounds.

        What counts is what is ready, scheduled or parked.  What is leased does not, and what comes back to a queue by
        other ways (a retry, work that is handed back or rescued, a replayed dead letter) is never refused: a queue may be
        longer than its bound by that, and takes nothing new until it is shorter again.

        Where the oldest make room, those of the lowest priority go first, to the dead letters with the reason
        ``overflow``; what is scheduled or parked is not dropped.

        Args:
            messages: as for :meth:`publish`, all or nothing.  Those of queues without a bound are sent with the others.
            bounds: by the name of the queue.

        Raises:
            QueueFull: one of the queues has no room for its messages.  Nothing was sent, and nothing dropped.
            ConfigurationError: this broker cannot bound its queues.
        """
        raise ConfigurationError(f"The broker at {self.url} cannot bound the length of its queues")

    def prepare(self, queues: Sequence[str]) -> None:  # noqa: B027 - most stores have nothing to prepare
        """See to it that queues exist and get what their exchanges have for them, where a store has such things."""

    def publish_claimed(
        self,
        messages: Sequence[Message],
        claims: Sequence[Claim | None],
        store: KeyValueStore,
        bounds: Mapping[str, Bound] = NO_BOUNDS,
    ) -> list[bytes | None]:
        """Publish messages of which some are sent only if nobody holds their key.

        In one transaction where the keys are in the broker's own store (:meth:`shares_keys`).  Else a key is claimed for a
        short time first, and for its whole time once the message is sent: a producer that dies in between frees it by that.

        Args:
            messages: as for :meth:`publish`.
            claims: for each message; ``None``: it is sent in any case.
            store: where the keys are.
            bounds: as for :meth:`publish_within`; with any, the key is claimed first wherever it is.

        Returns:
            For each message ``None`` if it was sent, else the value of the key that somebody holds.
        """
        found: list[bytes | None] = []
        for claim in claims:
            value = store.claim(claim._replace(ttl=min(claim.ttl, CLAIM_SECONDS))) if claim else None
            # A key that this very message holds was claimed by a call of unknown fate.
            found.append(None if claim and value and holder_of(value) == claim.holder else value)
        wanted = [(message, claim) for message, claim, value in zip(messages, claims, found, strict=True) if not value]
        try:
            if wanted and bounds:
                self.publish_within([message for message, _ in wanted], bounds)
            elif wanted:
                self.publish([message for message, _ in wanted])
        except StoreUnavailable:
            raise  # it may have been sent
        except Exception:
            store.apply([KeyWrite(claim.space, claim.name, claim.holder) for _, claim in wanted if claim])
            raise
        for claim, value in zip(claims, found, strict=True):
            if claim and (claim.replace or not value):
                store.renew(Namespace(claim.space), claim.name, holder_of(value) if value else claim.holder, claim.ttl)
        return found

    # -- lease, settle, release ------------------------------------------------------------------------------------

    @abstractmethod
    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """Settle a batch and lease the next one, in one round trip.

        Each outcome is written whole or not at all, fenced by its lease; see :class:`~celeriac.outcome.Outcome`.
        Then up to ``limit`` messages are leased: all of priority 0 before any of priority 3, within one priority the
        queues in the order given (callers rotate it), within one queue the oldest first.  Does not block.

        Raises:
            OwnerLost: the owner is unknown or condemned.  Nothing was written or leased.
        """

    def settle(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """Settle a batch without leasing.  Raises ``OwnerLost`` as :meth:`turn` does."""
        return self.turn(owner, outcomes, (), 0)[0]

    def lease(self, owner: str, queues: Sequence[str], limit: int) -> list[Delivery]:
        """Lease without settling.  Raises ``OwnerLost`` as :meth:`turn` does."""
        return self.turn(owner, (), queues, limit)[1]

    def acknowledge(self, owner: str, tag: int) -> None:  # noqa: B027 - most have nothing to do
        """Acknowledge a delivery whose task is acknowledged early, just before it starts.  It stays leased until it is settled.

        Called where :attr:`acknowledges_apart` says so.
        """

    @abstractmethod
    def release(self, owner: str, tags: Sequence[int]) -> int:
        """Put unstarted deliveries back at the head of their queues, in their old order; return how many.

        Tags that the owner does not hold are passed over, so that a second call does no harm.
        """

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block until one of the queues may have a message, up to ``timeout`` seconds; return whether it may.

        One thread of a process waits at a time.  It costs next to nothing while nothing comes, and notices within
        milliseconds when something does.
        """

    # -- messages that are pushed ----------------------------------------------------------------------------------

    def subscribe(self, owner: str, wake: Callable[[], None]) -> None:  # noqa: B027 - most stores push nothing
        """This owner leases again and again from now on, so messages may be pushed to it ahead of its leases: no more of them, together
        with what it has leased, than it asked for last.  Called where :attr:`pushes` says so.

        Args:
            owner: that is registered.
            wake: called, from any thread, when a message has come without the file descriptor of :meth:`listen` telling so.
        """

    def listen(self, owner: str, queues: Sequence[str], room: int, *, quiet: bool) -> Listening:
        """The owner has nothing to do: have messages pushed to it.

        Args:
            owner: that subscribed.
            queues: that it serves.
            room: how many messages can start at once.
            quiet: whether none have come for a while; no more are pushed at first than can start then.
        """
        return Listening(None, 1.0)

    def withdraw(self, owner: str, queues: Collection[str], *, must: bool) -> bool:
        """The owner can start nothing for now: what was pushed to it and not leased goes back to its place, and no more is pushed before it
        leases or listens again.  Never fails: a store that is away has taken it back.

        Args:
            owner: that subscribed.
            queues: those of its leases that it has not started.
            must: even if it makes no difference.

        Returns:
            Whether what it has not started is to go back as well.  It makes no difference while nobody waits for it: others have
            enough to do.
        """
        return True

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str], limit: int = 100) -> list[Lane]:
        """Lanes of these queues that have messages, in one round trip: at most ``limit`` of each queue, others each time where
        there are more.
        """
        return []

    def unpark(self, owner: str, wanted: Sequence[Lane]) -> list[list[Delivery]]:
        """Lease messages from lanes, in one round trip: for each lane up to its count, by priority, then the oldest first.

        From then on they are messages of their queue like any other: what goes back goes there.

        Raises:
            OwnerLost: as :meth:`turn` does.
        """
        raise ConfigurationError(f"The broker at {self.url} has no lanes")

    def alive(self, owners: Sequence[str]) -> set[str]:
        """Those of these owners that are registered and not condemned; all of them where a broker cannot tell."""
        return set(owners)

    # -- owners ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """Make an owner known and alive for ``ttl`` seconds, serving these queues."""

    @abstractmethod
    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """Keep owners alive for ``ttl`` more seconds, in one round trip; return those that are lost (condemned)."""

    @abstractmethod
    def unregister(self, owner: str) -> bool:
        """Forget an owner, alive or condemned, that holds nothing; return False when it still holds leases."""

    # -- rescue ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def expired(self, limit: int = 100) -> list[str]:
        """Owners whose time ran out, and condemned ones that still hold leases (a rescue that was cut short)."""

    @abstractmethod
    def condemn(self, owner: str) -> None:
        """Fence an owner off.  What it holds stays leased until it is settled with :meth:`settle_condemned`."""

    @abstractmethod
    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """What an owner holds, alive or condemned, by ascending tag."""

    @abstractmethod
    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """Settle on behalf of a condemned owner.  Of several rescuers each message is settled by one."""

    # -- schedule --------------------------------------------------------------------------------------------------

    @abstractmethod
    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """Move messages that are due to the tail of their queues, oldest due first.

        Returns how many were moved, and in how many seconds the next one is due (``None`` when the schedule of these
        queues is empty).  Several nodes may call it at once.
        """

    def first_scheduled(self, queue: str, limit: int) -> list[tuple[float, bytes]] | None:
        """When it is due (seconds since the epoch) and envelope of what comes first in a queue's schedule, soonest first; ``None``
        from a broker that cannot be looked into.
        """
        return None

    # -- looking ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """How much lies in each queue, in the order asked."""

    @abstractmethod
    def leased_count(self) -> int:
        """Messages that are leased, by all owners of the store."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Throw away what is ready, scheduled or parked in a queue; return how many."""

    # -- dead letters ----------------------------------------------------------------------------------------------

    @abstractmethod
    def dead_count(self) -> int:
        """How many dead letters are kept."""

    @abstractmethod
    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """Dead letters, newest first; ``before`` continues after the last id of a page."""

    @abstractmethod
    def dead_letter(self, id: str) -> DeadMessage | None:
        """One dead letter."""

    @abstractmethod
    def replay(self, id: str, message: Message | None = None) -> bool:
        """Move a dead letter back to the tail of its queue, or ``message`` in its place.

        Returns False when it is not there any more: replaying twice sends once.
        """

    @abstractmethod
    def discard(self, ids: Iterable[str]) -> int:
        """Delete dead letters; return how many were there."""

    def expire_dead(self, before: float, limit: int = 100) -> int:
        """Delete dead letters that died before this moment (seconds since the epoch), the oldest first; return how many.

        At most ``limit``.  A broker that has no quicker way looks at all of them, a page at a time.
        """
        old: list[str] = []
        last: str | None = None
        while page := self.dead_letters(self.dead_page, last):
            old += [letter.id for letter in page if letter.at < before]
            last = page[-1].id
        return self.discard(old[-limit:]) if old else 0

    # -- the rest --------------------------------------------------------------------------------------------------

    @abstractmethod
    def shares_store(self, backend: Backend | None) -> bool:
        """Whether this broker writes that backend's results itself, in the same atomic settle."""

    def shares_keys(self, store: KeyValueStore) -> bool:
        """Whether this broker writes that store's keys itself, in the same atomic publish and settle."""
        return False

    @abstractmethod
    def ping(self) -> None:
        """Go to the store and back."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections.  The object can be used again; it connects anew."""
