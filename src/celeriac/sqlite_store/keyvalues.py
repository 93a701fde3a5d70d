"""Entries of the key-value store, inside whatever transaction the caller has open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from celeriac.keyvalue import Claim, Entry, Namespace, holder_of
from celeriac.outcome import KeyWrite
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "keyvalues.sql")


def get(connection: sqlite3.Connection, space: Namespace, name: str, now: float) -> Entry | None:
    """An entry, if it is there and has not expired."""
    row = connection.execute(_SQL["get"], (space.name, name, now)).fetchone()
    return Entry(*row) if row else None


def put(connection: sqlite3.Connection, space: Namespace, name: str, value: bytes, expires: float | None) -> int:
    """Write an entry; return its version."""
    cursor = connection.execute(_SQL["put"], (space.name, name, value, expires))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def drop(connection: sqlite3.Connection, space: Namespace, name: str) -> None:
    """Delete an entry."""
    connection.execute(_SQL["drop"], (space.name, name))


def claim(connection: sqlite3.Connection, wish: Claim, now: float) -> bytes | None:
    """See :meth:`KeyValueStore.claim`."""
    space = Namespace(wish.space)
    entry = get(connection, space, wish.name, now)
    if entry is None:
        put(connection, space, wish.name, wish.value, now + wish.ttl)
        return None
    value = wish.over(entry.value)
    if wish.replace:
        put(connection, space, wish.name, value, now + wish.ttl)
    return value


def apply(connection: sqlite3.Connection, writes: Iterable[KeyWrite], now: float) -> None:
    """See :meth:`KeyValueStore.apply`."""
    for write in writes:
        space = Namespace(write.space)
        entry = get(connection, space, write.name, now)
        if entry is None or holder_of(entry.value) != write.holder:
            continue
        if write.value is None:
            drop(connection, space, write.name)
        else:
            put(connection, space, write.name, write.value, None if write.ttl is None else now + write.ttl)


def names(connection: sqlite3.Connection, space: Namespace, now: float) -> list[str]:
    """The names in a namespace, sorted."""
    return [name for (name,) in connection.execute(_SQL["names"], (space.name, now))]


def any_expired(connection: sqlite3.Connection, now: float) -> bool:
    """Whether :func:`expire` would find something."""
    return connection.execute(_SQL["any_expired"], (now,)).fetchone() is not None


def expire(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """Delete entries whose time is over; return how many."""
    return connection.execute(_SQL["expire"], (now, limit)).rowcount
