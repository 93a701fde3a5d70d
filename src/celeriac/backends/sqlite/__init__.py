"""The SQLite result store: results, groups and chord counts in one file, the broker's or one of its own."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from celeriac.backend import FINAL_STATES, Backend
from celeriac.backends.sqlite import expiring
from celeriac.outcome import ChordPart, Result
from celeriac.sqlite_store import LOCK_TIMEOUT, SQLiteStore, Synchronous, bell, chords, path_from_url
from celeriac.sqlite_store.results import put_results
from celeriac.sqlite_store.statements import statements

__all__ = ["RESULT_TTL", "SQLiteBackend"]

T = TypeVar("T")

RESULT_TTL = 86_400.0
"""Celery's ``result_expires``: a day, in seconds."""

_SQL = statements(__package__ or "", "fetch.sql")


class SQLiteBackend(Backend):
    """Results in one SQLite file.

    Give a chord its size (:meth:`start_chord`) before its members are published: a size that comes after the last
    member was counted completes the chord for nobody, until a member is counted again.

    Args:
        path: the file.  It is created when it is missing; its directory must exist.
        result_ttl: seconds that results, groups and unfinished chords are kept after they were last written; ``None``
            keeps them for ever.  Too low and callers find nothing, too high and the file grows.
        timeout: seconds to wait for other processes' transactions before ``StoreUnavailable``.
        synchronous: ``"FULL"``, every commit is on disk when a call returns; or ``"NORMAL"``, see
            :class:`~celeriac.sqlite_store.SQLiteStore`.
        clock: wall-clock time in seconds since the epoch.

    Raises:
        ConfigurationError: the path or an option cannot work.
        SchemaError: Python's SQLite is too old.  The file itself is looked at when it is first used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        result_ttl: float | None = RESULT_TTL,
        timeout: float = LOCK_TIMEOUT,
        synchronous: Synchronous = "FULL",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.file = SQLiteStore(path, timeout=timeout, synchronous=synchronous)
        self.url = self.file.url
        self.round_trips = 0
        self._ttl = result_ttl
        self._clock = clock

    @classmethod
    def from_url(
        cls, url: str, *, result_ttl: float | None = RESULT_TTL, synchronous: Synchronous = "FULL"
    ) -> SQLiteBackend:
        """The backend of ``sqlite:///path``.  Raises ``ConfigurationError`` when the URL names no file."""
        return cls(path_from_url(url), result_ttl=result_ttl, synchronous=synchronous)

    # -- results ---------------------------------------------------------------------------------------------------

    def store(self, results: Sequence[Result], *, guarded: bool = False) -> None:
        """See :meth:`Backend.store`."""
        if not results:
            return
        now = self._clock()
        self._write(lambda c: put_results(c, results, now, guarded=guarded))
        bell.ring(self.file.wal_path)

    def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """See :meth:`Backend.fetch`."""
        cutoff = self._cutoff()
        rows = self._read(lambda c: [c.execute(_SQL["result"], (id, cutoff)).fetchone() for id in task_ids])
        return [row[0] if row else None for row in rows]

    def forget(self, task_ids: Sequence[str]) -> None:
        """See :meth:`Backend.forget`."""
        if task_ids:
            self._write(lambda c: c.executemany(_SQL["forget_result"], [(id,) for id in task_ids]))

    def wait(self, task_ids: Sequence[str], timeout: float) -> bool:
        """See :meth:`Backend.wait`.

        Returns at once when one of the tasks has a final result already: it may have come after the caller looked.
        """
        self.round_trips += 1
        first: list[dict[str, tuple[int, str]]] = []

        def changed(connection: sqlite3.Connection) -> bool:
            seen = _seen(connection, task_ids)
            if not first:
                first.append(seen)
                return any(state in FINAL_STATES for _, state in seen.values())
            return seen != first[0]

        return self.file.wait(self.file.wal_path, changed, timeout)

    # -- groups ----------------------------------------------------------------------------------------------------

    def store_group(self, group_id: str, payload: bytes) -> None:
        """See :meth:`Backend.store_group`."""
        self._write(lambda c: c.execute(_SQL["put_group"], (group_id, self._clock(), payload)))

    def fetch_group(self, group_id: str) -> bytes | None:
        """See :meth:`Backend.fetch_group`."""
        row = self._read(lambda c: c.execute(_SQL["group"], (group_id, self._cutoff())).fetchone())
        return row[0] if row else None

    def forget_group(self, group_id: str) -> None:
        """See :meth:`Backend.forget_group`."""
        self._write(lambda c: c.execute(_SQL["forget_group"], (group_id,)))

    # -- chords ----------------------------------------------------------------------------------------------------

    def start_chord(self, group_id: str, size: int) -> None:
        """See :meth:`Backend.start_chord`."""
        self._write(lambda c: chords.start_chord(c, group_id, size, self._clock()))

    def grow_chord(self, group_id: str, more: int) -> None:
        """See :meth:`Backend.grow_chord`."""
        self._write(lambda c: chords.grow_chord(c, group_id, more, self._clock()))

    def count_parts(self, parts: Sequence[ChordPart]) -> list[ChordPart]:
        """See :meth:`Backend.count_parts`."""
        if not parts:
            return []
        now = self._clock()
        return self._write(lambda c: [part for part in parts if chords.count_part(c, part, now)])

    def chord_parts(self, group_id: str) -> list[bytes]:
        """See :meth:`Backend.chord_parts`.  Parts without an index come last, by task id."""
        return self._read(lambda c: chords.chord_parts(c, group_id))

    def finish_chord(self, group_id: str) -> None:
        """See :meth:`Backend.finish_chord`.  It is remembered for :data:`~.expiring.DONE_TTL`."""
        self._write(lambda c: chords.finish_chords(c, (group_id,), self._clock()))

    # -- the rest --------------------------------------------------------------------------------------------------

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`Backend.expire`.  Writes only when something is old."""
        cutoff, done_cutoff = self._cutoff(), self._clock() - expiring.DONE_TTL
        if not self._read(lambda c: expiring.anything_old(c, cutoff, done_cutoff)):
            return 0
        return self._write(lambda c: expiring.expire(c, cutoff, done_cutoff, limit))

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self.file.close()

    def _cutoff(self) -> float:
        """What was written at this time or before has expired."""
        return -math.inf if self._ttl is None else self._clock() - self._ttl

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.round_trips += 1
        return self.file.read(work)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.round_trips += 1
        return self.file.write(work)


def _seen(connection: sqlite3.Connection, task_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Row and state of those that have a record; a write changes the row."""
    rows = ((id, connection.execute(_SQL["seen"], (id,)).fetchone()) for id in task_ids)
    return {id: row for id, row in rows if row}
