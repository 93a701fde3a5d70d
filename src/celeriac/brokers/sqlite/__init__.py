"""The SQLite broker: queues in one file, for any number of processes of one machine.

Every method is one transaction, so that settling, the results, the chord counts and the next lease are one write.
What went back to its queue keeps its age: the head of a queue is its oldest message, whoever returns it and when.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from celeriac.backend import Backend
from celeriac.broker import NO_BOUNDS, Broker, DeadMessage, Depth, Lane
from celeriac.brokers.sqlite import burying, leasing, looking, owning, parking, publishing, settling
from celeriac.errors import ConfigurationError
from celeriac.keyvalue import Claim, KeyValueStore
from celeriac.message import Bound, Delivery, Message, lane_queue
from celeriac.outcome import Outcome, Settlement
from celeriac.sqlite_store import LOCK_TIMEOUT, SQLiteStore, Synchronous, bell, keyvalues, path_from_url

__all__ = ["DEAD_LIMIT", "PRIORITY_STEPS", "SQLiteBroker"]

T = TypeVar("T")

DEAD_LIMIT = 10_000
"""Dead letters that are kept; beyond it the oldest are dropped."""

PRIORITY_STEPS = (0, 3, 6, 9)
"""Celery's: a priority counts as the highest step that is not above it."""

_PURGE_BATCH = 10_000
"""Messages per transaction of a purge: bounds the write-ahead log and how long others wait."""


class SQLiteBroker(Broker):
    """A broker in one SQLite file.

    Args:
        path: the file.  It is created when it is missing; its directory must exist.
        timeout: seconds to wait for other processes' transactions before ``StoreUnavailable``.
        synchronous: ``"FULL"``, every commit is on disk when a call returns; or ``"NORMAL"``, see
            :class:`~celeriac.sqlite_store.SQLiteStore`.
        priority_steps: the priorities that are told apart, ascending, 0 the highest.
        dead_limit: dead letters to keep.  Too low and failures vanish before anybody saw them; too high and the file
            grows by their size.
        clock: wall-clock time in seconds since the epoch.

    Raises:
        ConfigurationError: the path or an option cannot work.
        SchemaError: Python's SQLite is too old.  The file itself is looked at when it is first used.
    """

    has_lanes = True
    writes_keys = True

    def __init__(  # noqa: PLR0913 - options, all but one by name
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = LOCK_TIMEOUT,
        synchronous: Synchronous = "FULL",
        priority_steps: Sequence[int] = PRIORITY_STEPS,
        dead_limit: int = DEAD_LIMIT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not priority_steps or sorted(priority_steps) != list(priority_steps):
            raise ConfigurationError(f"priority_steps must ascend: {priority_steps!r}")
        self.file = SQLiteStore(path, timeout=timeout, synchronous=synchronous)
        self.url = self.file.url
        self.round_trips = 0
        self._steps = tuple(priority_steps)
        self._dead_limit = dead_limit
        self._clock = clock

    @classmethod
    def from_url(cls, url: str, *, timeout: float = LOCK_TIMEOUT, synchronous: Synchronous = "FULL") -> SQLiteBroker:
        """The broker of ``sqlite:///path``.  Raises ``ConfigurationError`` when the URL names no file."""
        return cls(path_from_url(url), timeout=timeout, synchronous=synchronous)

    # -- sending ---------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`Broker.publish`."""
        now = self._clock()
        if not messages:
            return
        any_ready = self._write(lambda c: publishing.publish(c, messages, self._steps, now))
        if any_ready:
            bell.ring(self.file.path)

    def publish_within(self, messages: Sequence[Message], bounds: Mapping[str, Bound]) -> None:
        """See :meth:`Broker.publish_within`: one transaction."""
        now = self._clock()
        if not messages:
            return

        def work(connection: sqlite3.Connection) -> bool:
            any_ready = publishing.publish_within(connection, messages, bounds, self._steps, now)
            if any(bound.drop_oldest for bound in bounds.values()):
                burying.drop_excess(connection, self._dead_limit)
            return any_ready

        any_ready = self._write(work)
        if any_ready:
            bell.ring(self.file.path)

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
        now = self._clock()

        def work(connection: sqlite3.Connection) -> tuple[list[bytes | None], bool]:
            found = [claim and keyvalues.claim(connection, claim, now) for claim in claims]
            sent = [message for message, value in zip(messages, found, strict=True) if value is None]
            return found, publishing.publish(connection, sent, self._steps, now)

        found, any_ready = self._write(work)
        if any_ready:
            bell.ring(self.file.path)
        return found

    # -- lease, settle, release ------------------------------------------------------------------------------------

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`: one transaction."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> tuple[Settlement, list[Delivery]]:
            alive = leasing.live_owner(connection, owner)
            settlement = self._settle_as(connection, alive.id, outcomes, now)
            return settlement, leasing.lease(connection, alive, queues, limit)

        answer = self._write(work)
        self._ring_for(outcomes)
        return answer

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""

        def work(connection: sqlite3.Connection) -> int:
            row = owning.find(connection, owner)
            return settling.release(connection, row.id, tags) if row and not row.condemned else 0

        released = self._write(work) if tags else 0
        if released:
            bell.ring(self.file.path)
        return released

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`.  Woken by a bell (:mod:`celeriac.sqlite_store.bell`), then looks."""
        self.round_trips += 1
        return self.file.wait(self.file.path, lambda c: leasing.any_ready(c, queues), timeout)

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str], limit: int = 100) -> list[Lane]:
        """See :meth:`Broker.lanes`."""
        return self._read(lambda c: parking.lanes(c, queues, limit))

    def unpark(self, owner: str, wanted: Sequence[Lane]) -> list[list[Delivery]]:
        """See :meth:`Broker.unpark`: one transaction."""
        return self._write(lambda c: parking.unpark(c, leasing.live_owner(c, owner), wanted))

    def alive(self, owners: Sequence[str]) -> set[str]:
        """See :meth:`Broker.alive`."""
        return self._read(lambda c: parking.alive(c, owners))

    # -- owners ----------------------------------------------------------------------------------------------------

    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """See :meth:`Broker.register`.  Raises ``OwnerLost`` when the name is that of a condemned owner."""
        now = self._clock()
        self._write(lambda c: owning.register(c, owner, json.dumps(list(queues)), now + ttl, now))

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`."""
        deadline = self._clock() + ttl
        return self._write(lambda c: owning.beat(c, owners, json.dumps(list(queues)), deadline))

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`.  True for an unknown owner."""
        return self._write(lambda c: owning.unregister(c, owner))

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`.  A condemned owner is left to its rescuer for 10 s."""
        now = self._clock()
        return self._read(lambda c: owning.expired(c, now, limit))

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`.  Does nothing for an unknown owner."""
        now = self._clock()
        self._write(lambda c: owning.condemn(c, owner, now))

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`."""
        return self._read(lambda c: owning.leased(c, owner, limit))

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`.  For an owner that is not condemned all outcomes are refused."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> Settlement:
            row = owning.find(connection, owner)
            if row is None or not row.condemned:
                return Settlement(fenced=len(outcomes))
            return self._settle_as(connection, row.id, outcomes, now)

        settlement = self._write(work)
        self._ring_for(outcomes)
        return settlement

    # -- schedule --------------------------------------------------------------------------------------------------

    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """See :meth:`Broker.promote`.  Writes only when something is due."""
        now = self._clock()
        due, first = self._read(lambda c: (publishing.due_ids(c, queues, 1, now), publishing.next_due(c, queues)))
        if due:
            moved, first = self._write(
                lambda c: (publishing.promote(c, queues, limit, now), publishing.next_due(c, queues))
            )
            bell.ring(self.file.path)
        return moved if due else 0, None if first is None else max(0.0, first - now)

    def first_scheduled(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """See :meth:`Broker.first_scheduled`."""
        return self._read(lambda c: looking.first_scheduled(c, queue, limit))

    # -- looking ---------------------------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """See :meth:`Broker.depth`.  Reads a few rows per queue however long it is."""
        now = self._clock()
        return self._read(lambda c: looking.depths(c, queues, now))

    def leased_count(self) -> int:
        """See :meth:`Broker.leased_count`."""
        return self._read(looking.leased_count)

    def purge(self, queue: str) -> int:
        """See :meth:`Broker.purge`.  Goes in batches, each one transaction."""
        total = self._purge_one(queue)
        while lanes := self.lanes([queue]):
            total += sum(self._purge_one(lane_queue(queue, lane.name)) for lane in lanes)
        return total

    def _purge_one(self, queue: str) -> int:
        total = 0
        while True:
            purged = self._write(lambda c: looking.purge_some(c, queue, _PURGE_BATCH))
            total += purged
            if purged < _PURGE_BATCH:
                return total

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead_count(self) -> int:
        """See :meth:`Broker.dead_count`."""
        return self._read(burying.count)

    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """See :meth:`Broker.dead_letters`."""
        return self._read(lambda c: burying.page(c, limit, before))

    def dead_letter(self, id: str) -> DeadMessage | None:
        """See :meth:`Broker.dead_letter`."""
        return self._read(lambda c: burying.one(c, id))

    def replay(self, id: str, message: Message | None = None) -> bool:
        """See :meth:`Broker.replay`."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> bool:
            original = burying.exhume(connection, id)
            if original is not None:
                publishing.publish(connection, [message or original], self._steps, now)
            return original is not None

        replayed = self._write(work)
        if replayed:
            bell.ring(self.file.path)
        return replayed

    def discard(self, ids: Iterable[str]) -> int:
        """See :meth:`Broker.discard`."""
        given = list(ids)
        return self._write(lambda c: burying.discard(c, given)) if given else 0

    def expire_dead(self, before: float, limit: int = 100) -> int:
        """See :meth:`Broker.expire_dead`."""
        return self._write(lambda c: burying.expire(c, before, limit))

    # -- the rest --------------------------------------------------------------------------------------------------

    def shares_store(self, backend: Backend | None) -> bool:
        """See :meth:`Broker.shares_store`: whether the backend is on the same file."""
        other = getattr(backend, "file", None)
        return isinstance(other, SQLiteStore) and other.same_file(self.file)

    def shares_keys(self, store: KeyValueStore) -> bool:
        """See :meth:`Broker.shares_keys`: whether the keys are in the same file."""
        other = getattr(store, "file", None)
        return isinstance(other, SQLiteStore) and other.same_file(self.file)

    def ping(self) -> None:
        """See :meth:`Broker.ping`."""
        self._read(lambda c: c.execute("SELECT 1").fetchone())

    def close(self) -> None:
        """See :meth:`Broker.close`."""
        self.file.close()

    def _settle_as(
        self, connection: sqlite3.Connection, owner_id: int, outcomes: Sequence[Outcome], now: float
    ) -> Settlement:
        if not outcomes:
            return Settlement()
        settlement = settling.settle(connection, owner_id, outcomes, self._steps, now)
        if any(outcome.dead for outcome in outcomes):
            burying.drop_excess(connection, self._dead_limit)
        return settlement

    def _ring_for(self, outcomes: Sequence[Outcome]) -> None:
        if settling.publishes(outcomes):
            bell.ring(self.file.path)
        if any(outcome.results for outcome in outcomes):
            bell.ring(self.file.wal_path)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.round_trips += 1
        return self.file.read(work)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.round_trips += 1
        return self.file.write(work)
