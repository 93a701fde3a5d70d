"""The contract of :mod:`celeriac.keyvalue`, in a Celeriac file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from celeriac.keyvalue import ABSENT, Change, Claim, Entry, KeyValueStore, Namespace
from celeriac.outcome import KeyWrite
from celeriac.sqlite_store import LOCK_TIMEOUT, SQLiteStore, Synchronous, keyvalues

T = TypeVar("T")


class SQLiteKeyValues(KeyValueStore):
    """Keys and values in one SQLite file, beside the queues.

    Args:
        path: the file.  It is created when it is missing; its directory must exist.
        timeout: seconds to wait for other processes' transactions.
        synchronous: see :class:`~celeriac.sqlite_store.SQLiteStore`.
        clock: wall-clock time in seconds since the epoch.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = LOCK_TIMEOUT,
        synchronous: Synchronous = "FULL",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.file = SQLiteStore(path, timeout=timeout, synchronous=synchronous)
        self.url = self.file.url
        self.round_trips = 0
        self._clock = clock

    def read(self, space: Namespace, names: Sequence[str]) -> tuple[float, list[Entry | None]]:
        """See :meth:`KeyValueStore.read`."""
        now = self._clock()
        self.round_trips += 1
        return now, self.file.read(lambda c: [keyvalues.get(c, space, name, now) for name in names])

    def write(self, space: Namespace, name: str, value: bytes | None, *, ttl: float | None, version: int) -> int:
        """See :meth:`KeyValueStore.write`."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> int:
            entry = keyvalues.get(connection, space, name, now)
            if (entry.version if entry else ABSENT) != version:
                return 0
            return _put(connection, space, name, value, _moment(now, ttl))

        self.round_trips += 1
        return self.file.write(work)

    def update(self, space: Namespace, name: str, change: Callable[[bytes | None, float], Change[T]]) -> T:
        """See :meth:`KeyValueStore.update`: one transaction, and none that writes when nothing changes."""

        def work(connection: sqlite3.Connection) -> T:
            now = self._clock()
            entry = keyvalues.get(connection, space, name, now)
            wanted = change(entry.value if entry else None, now)
            if not wanted.keep:
                _put(connection, space, name, wanted.value, _moment(now, wanted.ttl))
            return wanted.answer

        self.round_trips += 1
        return self.file.write(work)

    def claim(self, claim: Claim) -> bytes | None:
        """See :meth:`KeyValueStore.claim`."""
        self.round_trips += 1
        return self.file.write(lambda c: keyvalues.claim(c, claim, self._clock()))

    def apply(self, writes: Sequence[KeyWrite]) -> None:
        """See :meth:`KeyValueStore.apply`: one transaction."""
        self.round_trips += 1
        self.file.write(lambda c: keyvalues.apply(c, writes, self._clock()))

    def names(self, space: Namespace) -> list[str]:
        """See :meth:`KeyValueStore.names`."""
        assert space.listed, f"{space.name} is not listed"
        self.round_trips += 1
        return self.file.read(lambda c: keyvalues.names(c, space, self._clock()))

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`KeyValueStore.expire`.  Writes only when something is old."""
        now = self._clock()
        self.round_trips += 1
        if not self.file.read(lambda c: keyvalues.any_expired(c, now)):
            return 0
        return self.file.write(lambda c: keyvalues.expire(c, now, limit))

    def close(self) -> None:
        """See :meth:`KeyValueStore.close`."""
        self.file.close()


def _put(
    connection: sqlite3.Connection, space: Namespace, name: str, value: bytes | None, expires: float | None
) -> int:
    if value is not None:
        return keyvalues.put(connection, space, name, value, expires)
    keyvalues.drop(connection, space, name)
    return 1


def _moment(now: float, ttl: float | None) -> float | None:
    return None if ttl is None else now + ttl
