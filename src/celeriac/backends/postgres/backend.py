"""The PostgreSQL result store: results, groups and chord counts in one schema, the broker's or one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.backend import Backend
from celeriac.backends.postgres import expiring
from celeriac.backends.postgres.waiting import Waiting
from celeriac.outcome import ChordPart, Result
from celeriac.postgres_store import PostgresOptions, PostgresStore
from celeriac.postgres_store.arrays import Booleans, Byteas, Integers, Texts
from celeriac.postgres_store.results import CLAIM_TTL, last_of_each, position
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call

RESULT_TTL = 86_400.0
"""Celery's ``result_expires``: a day, in seconds."""

FOREVER = 100 * 365 * 86_400.0
"""Seconds that stand for no end."""


class PostgresBackend(Backend):
    """Results in one schema of a PostgreSQL database.

    Give a chord its size (:meth:`start_chord`) before its members are published: a size that comes after the last
    member was counted completes the chord for nobody, until a member is counted again.

    Args:
        options: where the database is.
        result_ttl: seconds that results, groups and unfinished chords are kept after they were last written; ``None``
            keeps them for ever.  Too low and callers find nothing, too high and the tables grow.

    Raises:
        ConfigurationError: the URL or an option cannot work.  The server is looked at when it is first used.
    """

    def __init__(self, options: PostgresOptions, *, result_ttl: float | None = RESULT_TTL) -> None:
        self.database = PostgresStore(options)
        self.url = self.database.url
        self._ttl = FOREVER if result_ttl is None else float(result_ttl)
        self._sql = {
            name: statement
            for file in ("results.sql", "chords.sql")
            for name, statement in statements(__package__ or "", file, options.schema).items()
        }
        self._waiting = Waiting(self.database, self._sql)

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self.database.round_trips

    # -- results ---------------------------------------------------------------------------------------------------

    def store(self, results: Sequence[Result], *, guarded: bool = False) -> None:
        """See :meth:`Backend.store`."""
        if not results:
            return
        ids, states, payloads = zip(*last_of_each(results, guarded=guarded), strict=True)
        arrays = (Texts(ids), Texts(states), Byteas(payloads), Booleans([guarded] * len(ids)))
        self._rows("put", *arrays, after=self._call("announce", arrays[0]))

    def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """See :meth:`Backend.fetch`."""
        if not task_ids:
            return []
        found = dict(self._rows("fetch", Texts(task_ids), self._ttl))
        return [found.get(task_id) for task_id in task_ids]

    def forget(self, task_ids: Sequence[str]) -> None:
        """See :meth:`Backend.forget`."""
        if task_ids:
            self._rows("forget", Texts(task_ids))

    def wait(self, task_ids: Sequence[str], timeout: float) -> bool:
        """See :meth:`Backend.wait`.

        Returns at once when one of the tasks has a final result already: it may have come after the caller looked.
        """
        return self._waiting.wait(task_ids, timeout)

    # -- groups ----------------------------------------------------------------------------------------------------

    def store_group(self, group_id: str, payload: bytes) -> None:
        """See :meth:`Backend.store_group`."""
        self._rows("put_group", group_id, payload)

    def fetch_group(self, group_id: str) -> bytes | None:
        """See :meth:`Backend.fetch_group`."""
        rows = self._rows("group", group_id, self._ttl)
        return rows[0][0] if rows else None

    def forget_group(self, group_id: str) -> None:
        """See :meth:`Backend.forget_group`."""
        self._rows("forget_group", group_id)

    # -- chords ----------------------------------------------------------------------------------------------------

    def start_chord(self, group_id: str, size: int) -> None:
        """See :meth:`Backend.start_chord`."""
        self._rows("start", group_id, size)

    def grow_chord(self, group_id: str, more: int) -> None:
        """See :meth:`Backend.grow_chord`."""
        self._rows("grow", group_id, more)

    def count_parts(self, parts: Sequence[ChordPart]) -> list[ChordPart]:
        """See :meth:`Backend.count_parts`."""
        if not parts:
            return []
        rows = self._rows(
            "count",
            Texts(part.group_id for part in parts),
            Texts(part.task_id for part in parts),
            Integers(position(part.index) for part in parts),
            Byteas(part.payload for part in parts),
            CLAIM_TTL,
        )
        return [parts[place - 1] for (place,) in rows]

    def chord_parts(self, group_id: str) -> list[bytes]:
        """See :meth:`Backend.chord_parts`.  Parts without an index come last, by task id."""
        return [payload for (payload,) in self._rows("parts", group_id)]

    def finish_chord(self, group_id: str) -> None:
        """See :meth:`Backend.finish_chord`.  It is remembered for :data:`~.expiring.DONE_TTL`."""
        self._rows("finish", Texts([group_id]))

    # -- the rest --------------------------------------------------------------------------------------------------

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`Backend.expire`.  Writes only when something is old."""
        return expiring.expire(self.database, self._ttl, limit)

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self.database.close()

    def _rows(self, name: str, *arguments: Any, after: Call | None = None) -> list[tuple[Any, ...]]:
        return self.database.rows(self._call(name, *arguments), after)

    def _call(self, name: str, *arguments: Any) -> Call:
        return Call(self._sql[name], arguments)
