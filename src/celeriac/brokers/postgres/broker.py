"""The PostgreSQL broker: queues in one schema of a database, for any number of nodes.

Every method is one statement, and so one transaction and one round trip; the work is done by functions in the schema
(``postgres_store/migrations``), whose plans the server keeps, whatever pooler may stand before it.
What went back to its queue keeps its age: the head of a queue is its oldest message, whoever returns it and when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celeriac.backend import Backend
from celeriac.broker import NO_BOUNDS, Broker, DeadMessage, Depth, Lane
from celeriac.brokers.postgres.settlement import Batch, TurnArguments, batches, read
from celeriac.errors import ConfigurationError, OwnerLost, QueueFull
from celeriac.keyvalue import Claim, KeyValueStore
from celeriac.message import Bound, Delivery, Message, lane_queue
from celeriac.outcome import Outcome, Settlement
from celeriac.postgres_store import PostgresOptions, PostgresStore
from celeriac.postgres_store.arrays import Bigints, Booleans, Integers, Texts
from celeriac.postgres_store.arrivals import Arrivals
from celeriac.postgres_store.keys import claim_columns
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call

PRIORITY_STEPS = (0, 3, 6, 9)
"""Celery's: a priority counts as the highest step that is not above it."""

RESCUE_CUT_SHORT_AFTER = 10.0
"""Seconds after which the messages of a condemned owner are anybody's to rescue.  Until then they are left to whoever
condemned it, who may know which of them had started."""

COUNTED = 100_000
"""Messages of a queue that are counted one by one; see ``look.sql``."""

COPY_FROM = 2000
"""How many messages it takes for COPY to be worth its two more round trips: it saves client and server some 4 µs a message."""

_PURGE_BATCH = 10_000
"""Messages per transaction of a purge: bounds how long others wait for a vacuum behind it."""

_NEWEST = 2**63 - 1
"""Above all ids."""


class PostgresBroker(Broker):
    """A broker in one schema of a PostgreSQL database.

    Args:
        options: where the database is.
        results: the result store.  When it is in the same schema its results are written in the same settle.
        priority_steps: the priorities that are told apart, ascending, 0 the highest.

    Raises:
        ConfigurationError: the URL or an option cannot work.  The server is looked at when it is first used.
    """

    writes_keys = True

    has_lanes = True

    def __init__(
        self,
        options: PostgresOptions,
        results: Backend | None = None,
        *,
        priority_steps: Sequence[int] = PRIORITY_STEPS,
    ) -> None:
        if not priority_steps or sorted(priority_steps) != list(priority_steps):
            raise ConfigurationError(f"priority_steps must ascend: {priority_steps!r}")
        self.database = PostgresStore(options)
        self.url = self.database.url
        self._arrivals = Arrivals(self.database)
        self._writes_results = _same(self.database, results)
        self._dead_limit = options.dead_limit
        self._arguments = TurnArguments(tuple(priority_steps), options.dead_limit, results=self._writes_results)
        self._sql = {
            name: statement
            for file in ("send.sql", "turn.sql", "owners.sql", "look.sql", "dead.sql", "lanes.sql")
            for name, statement in statements(__package__ or "", file, options.schema).items()
        }

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self.database.round_trips

    # -- sending ---------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`Broker.publish`: one round trip; three for :data:`COPY_FROM` messages and more."""
        if not messages:
            return
        announcement = self._announce((message.queue for message in messages), ())
        if len(messages) >= COPY_FROM and all(message.due is None for message in messages):
            self.database.copy(self._sql["publish_many"], self._arguments.rows(messages), announcement)
        else:
            self.database.rows(self._call("publish", *self._arguments.messages(messages)), announcement)

    def publish_claimed(
        self,
        messages: Sequence[Message],
        claims: Sequence[Claim | None],
        store: KeyValueStore,
        bounds: Mapping[str, Bound] = NO_BOUNDS,
    ) -> list[bytes | None]:
        """See :meth:`Broker.publish_claimed`."""
        if bounds or not self.shares_keys(store):
            return super().publish_claimed(messages, claims, store, bounds)
        call = self._call("publish_claimed", *self._arguments.messages(messages), *claim_columns(claims))
        announcement = self._announce((message.queue for message in messages), ())
        held: dict[int, bytes] = dict(self.database.rows(call, announcement))
        return [held.get(place) for place in range(1, len(messages) + 1)]

    def publish_within(self, messages: Sequence[Message], bounds: Mapping[str, Bound]) -> None:
        """See :meth:`Broker.publish_within`.  Counts up to the bound, in the index: about 1 ms for 10,000 messages."""
        if not messages:
            return
        counts = Counter(message.queue for message in messages if message.queue in bounds)
        names = sorted(counts)
        call = self._call(
            "publish_within",
            *self._arguments.messages(messages),
            Texts(names),
            Bigints(bounds[name].max_length for name in names),
            Booleans(bounds[name].drop_oldest for name in names),
            Bigints(counts[name] for name in names),
            self._dead_limit,
        )
        rows = self.database.rows(call, self._announce((message.queue for message in messages), ()))
        if rows:
            place, length = rows[0]
            name = names[place - 1]
            raise QueueFull(name, bounds[name].max_length, length, counts[name])

    # -- lease, settle, release ------------------------------------------------------------------------------------

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`: one function, one transaction."""
        return self._turn(owner, outcomes, queues, limit, condemned=False)

    def _turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int, *, condemned: bool
    ) -> tuple[Settlement, list[Delivery]]:
        *first, last = batches(outcomes, results=self._writes_results)
        done = [self._batch(owner, batch, (), 0, condemned=condemned)[0] for batch in first]
        settlement, leased = self._batch(owner, last, queues, limit, condemned=condemned)
        if done:
            done.append(settlement)
            settlement = Settlement(sum(s.fenced for s in done), tuple(chord for s in done for chord in s.ready))
        return settlement, leased

    def _batch(
        self, owner: str, batch: Batch, queues: Sequence[str], limit: int, *, condemned: bool
    ) -> tuple[Settlement, list[Delivery]]:
        outcomes = batch.outcomes
        arguments = self._arguments.of(owner, outcomes, queues, limit, condemned=condemned)
        rows = self.database.rows(Call(self._sql["turn"], arguments), self._announcement(outcomes))
        return read(batch, rows)

    def _announcement(self, outcomes: Sequence[Outcome]) -> Call | None:
        """Who is to be told of these outcomes, if anybody may be."""
        queues = {message.queue for outcome in outcomes for message in outcome.publish}
        queues.update(outcome.delivery.queue for outcome in outcomes if outcome.requeue is not None)
        tasks = [result.task_id for outcome in outcomes for result in outcome.results] if self._writes_results else []
        return self._announce(queues, tasks) if queues or tasks else None

    def _announce(self, queues: Iterable[str], tasks: Sequence[str]) -> Call:
        return self._call("announce", Texts(dict.fromkeys(queues)), Texts(tasks) if tasks else None)

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""
        if not tags:
            return 0
        queues = [queue for (queue,) in self.database.rows(self._call("release", owner, Bigints(tags)))]
        if queues:
            self.database.rows(self._announce(queues, ()))
        return len(queues)

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`.  Woken by a notification, or by looking again and again where there are none."""
        return self._arrivals.wait(queues, timeout, self._call("any_ready", Texts(queues)))

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str], limit: int = 100) -> list[Lane]:
        """See :meth:`Broker.lanes`.  Of a lane with more than 1,000 messages it shows as many."""
        return [Lane(*row) for row in self.database.rows(self._call("lanes", Texts(queues), limit))] if queues else []

    def unpark(self, owner: str, wanted: Sequence[Lane]) -> list[list[Delivery]]:
        """See :meth:`Broker.unpark`: one function, one transaction."""
        hidden = Texts(lane_queue(lane.queue, lane.name) for lane in wanted)
        homes, mosts = Texts(lane.queue for lane in wanted), Integers(lane.count for lane in wanted)
        found: list[list[Delivery]] = [[] for _ in wanted]
        for place, tag, raw in self.database.rows(self._call("unpark", owner, hidden, homes, mosts)):
            found[place - 1].append(Delivery(tag, wanted[place - 1].queue, raw))
        return found

    def alive(self, owners: Sequence[str]) -> set[str]:
        """See :meth:`Broker.alive`."""
        return {name for (name,) in self.database.rows(self._call("alive", Texts(owners)))} if owners else set()

    # -- owners ----------------------------------------------------------------------------------------------------

    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """See :meth:`Broker.register`.  Raises ``OwnerLost`` when the name is that of a condemned owner."""
        if not self.database.value(self._call("register", owner, Texts(queues), float(ttl))):
            raise OwnerLost(f"owner {owner!r} was condemned; register under a new name")

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`."""
        if not owners:
            return []
        alive = {name for (name,) in self.database.rows(self._call("beat", float(ttl), Texts(queues), Texts(owners)))}
        return [name for name in owners if name not in alive]

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`.  True for an unknown owner."""
        return bool(self.database.value(self._call("unregister", owner)))

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`.  A condemned owner is left to its rescuer for 10 s."""
        return [name for (name,) in self.database.rows(self._call("expired", RESCUE_CUT_SHORT_AFTER, limit))]

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`.  Does nothing for an unknown owner."""
        self.database.rows(self._call("condemn", owner))

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`."""
        return [Delivery(*row) for row in self.database.rows(self._call("leased", owner, limit))]

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`.  For an owner that is not condemned all outcomes are refused."""
        return self._turn(owner, outcomes, (), 0, condemned=True)[0] if outcomes else Settlement()

    # -- schedule --------------------------------------------------------------------------------------------------

    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """See :meth:`Broker.promote`.  Writes only when something is due."""
        wanted = Texts(dict.fromkeys(queues))
        wait = self.database.value(self._call("next_due", wanted))
        if wait is None or wait > 0:
            return 0, wait
        moved = [queue for (queue,) in self.database.rows(self._call("promote", wanted, limit))]
        wait = self.database.value(self._call("next_due", wanted), self._announce(moved, ()) if moved else None)
        return len(moved), None if wait is None else max(0.0, wait)

    def first_scheduled(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """See :meth:`Broker.first_scheduled`."""
        return [(due, raw) for due, raw in self.database.rows(self._call("first_scheduled", queue, limit))]

    # -- looking ---------------------------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """See :meth:`Broker.depth`.  Beyond :data:`COUNTED` messages a number is an estimate."""
        if not queues:
            return []
        rows = self.database.rows(self._call("depths", Texts(queues), COUNTED))
        return [
            Depth(
                queue,
                self._at_least("estimate_ready", queue, ready),
                self._at_least("estimate_scheduled", queue, scheduled),
                consumers,
                None if age is None else max(0.0, age),
                parked,
            )
            for queue, (ready, scheduled, consumers, age, parked) in zip(queues, rows, strict=True)
        ]

    def _at_least(self, estimate: str, queue: str, counted: int) -> int:
        if counted < COUNTED:
            return counted
        plan = self.database.value(self._call(estimate, queue))
        return max(counted, int(plan[0]["Plan"]["Plan Rows"]))

    def leased_count(self) -> int:
        """See :meth:`Broker.leased_count`."""
        return int(self.database.value(self._call("leased_count")))

    def purge(self, queue: str) -> int:
        """See :meth:`Broker.purge`.  Goes in batches, each one transaction."""
        total = self._purge("purge_ready", queue) + self._purge("purge_scheduled", queue)
        while lanes := self.lanes([queue]):
            total += sum(self._purge("purge_ready", lane_queue(queue, lane.name)) for lane in lanes)
        return total

    def _purge(self, statement: str, queue: str) -> int:
        total = 0
        while True:
            purged = int(self.database.value(self._call(statement, queue, _PURGE_BATCH)))
            total += purged
            if purged < _PURGE_BATCH:
                return total

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead_count(self) -> int:
        """See :meth:`Broker.dead_count`."""
        return int(self.database.value(self._call("count")))

    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """See :meth:`Broker.dead_letters`."""
        bound = _NEWEST if before is None else _row_id(before)
        return [] if bound is None else [_dead(*row) for row in self.database.rows(self._call("page", bound, limit))]

    def dead_letter(self, id: str) -> DeadMessage | None:
        """See :meth:`Broker.dead_letter`."""
        rows = self.database.rows(self._call("one", _row_id(id)))
        return _dead(*rows[0]) if rows else None

    def replay(self, id: str, message: Message | None = None) -> bool:
        """See :meth:`Broker.replay`."""
        if message is None:
            call = self._call("replay", _row_id(id))
        else:
            call = self._call("replay_instead", _row_id(id), message.queue, *self._arguments.messages([message]))
        queues = [queue for (queue,) in self.database.rows(call)]
        if queues:
            self.database.rows(self._announce(queues, ()))
        return bool(queues)

    def discard(self, ids: Iterable[str]) -> int:
        """See :meth:`Broker.discard`."""
        wanted = [row for id in ids if (row := _row_id(id)) is not None]
        return int(self.database.value(self._call("discard", Bigints(wanted)))) if wanted else 0

    def expire_dead(self, before: float, limit: int = 100) -> int:
        """See :meth:`Broker.expire_dead`."""
        return int(self.database.value(self._call("expire", before, limit)))

    # -- the rest --------------------------------------------------------------------------------------------------

    def shares_store(self, backend: Backend | None) -> bool:
        """See :meth:`Broker.shares_store`: the same schema of the same database."""
        return self._writes_results and _same(self.database, backend)

    def shares_keys(self, store: KeyValueStore) -> bool:
        """See :meth:`Broker.shares_keys`: whether the keys are in the same schema."""
        return _same(self.database, store)

    def ping(self) -> None:
        """See :meth:`Broker.ping`."""
        self.database.rows(self._call("ping"))

    def close(self) -> None:
        """See :meth:`Broker.close`."""
        self._arrivals.close()
        self.database.close()

    def _call(self, name: str, *arguments: Any) -> Call:
        return Call(self._sql[name], arguments)


def _same(store: PostgresStore, other_store: Backend | KeyValueStore | None) -> bool:
    other = getattr(other_store, "database", None)
    return isinstance(other, PostgresStore) and other.address == store.address


def _row_id(id: str) -> int | None:
    """The row of an id; None, which is no row's, for what cannot be an id."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None


def _dead(id: int, *rest: Any) -> DeadMessage:
    return DeadMessage(str(id), *rest)
