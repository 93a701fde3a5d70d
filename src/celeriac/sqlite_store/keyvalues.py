"""Entries of the key-value store, inside whatever transaction the caller has open."""

from __future__ import annotations

import sqlite3

from celeriac.keyvalue import Entry, Namespace
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "keyvalues.sql")


def get(connection: sqlite3.Connection, space: Namespace, name: str, now: float) -> Entry | None:
    """An entry, if it is there and has not expired."""
    row = connection.execute(_SQL["get"], (space.name, name, now)).fetchone()
    return Entry(*row) if row else None


def put(connection: sqlite3.Connection, space: Namespace, name: str, value: bytes, expires: float | None) -> None:
    """Write an entry."""
    connection.execute(_SQL["put"], (space.name, name, value, expires))


def drop(connection: sqlite3.Connection, space: Namespace, name: str) -> None:
    """Delete an entry."""
    connection.execute(_SQL["drop"], (space.name, name))


def names(connection: sqlite3.Connection, space: Namespace, now: float) -> list[str]:
    """The names in a namespace, sorted."""
    return [name for (name,) in connection.execute(_SQL["names"], (space.name, now))]


def any_expired(connection: sqlite3.Connection, now: float) -> bool:
    """Whether :func:`expire` would find something."""
    return connection.execute(_SQL["any_expired"], (now,)).fetchone() is not None


def expire(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """Delete entries whose time is over; return how many."""
    return connection.execute(_SQL["expire"], (now, limit)).rowcount
