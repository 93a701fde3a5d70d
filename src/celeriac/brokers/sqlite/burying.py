"""Keeps dead letters, lists them and gives them back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from celeriac.broker import DeadMessage
from celeriac.message import Message
from celeriac.outcome import DeadLetter
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "dead.sql")

_NEWEST = 2**63 - 1


def bury(connection: sqlite3.Connection, message: int, letter: DeadLetter, now: float) -> None:
    """Copy a message to the dead letters; the caller deletes it from where it was."""
    reason = str(getattr(letter.reason, "value", letter.reason))
    values = (letter.error, letter.task, letter.task_id, letter.traceback, letter.attempts, letter.crashes)
    connection.execute(_SQL["bury"], (message, reason, *values, letter.worker, letter.at or now))


def drop_excess(connection: sqlite3.Connection, limit: int) -> None:
    """Delete the oldest dead letters beyond ``limit``."""
    excess = count(connection) - limit
    if excess > 0:
        connection.execute(_SQL["drop_oldest"], (excess,))


def count(connection: sqlite3.Connection) -> int:
    """How many there are."""
    return int(connection.execute(_SQL["count"]).fetchone()[0])


def page(connection: sqlite3.Connection, limit: int, before: str | None) -> list[DeadMessage]:
    """Newest first, those older than ``before``."""
    bound = _NEWEST if before is None else _row_id(before)
    return [] if bound is None else [_message(row) for row in connection.execute(_SQL["page"], (bound, limit))]


def one(connection: sqlite3.Connection, id: str) -> DeadMessage | None:
    """The dead letter of this id."""
    row = connection.execute(_SQL["one"], (_row_id(id),)).fetchone()
    return _message(row) if row else None


def exhume(connection: sqlite3.Connection, id: str) -> Message | None:
    """Remove a dead letter and return the message that it was."""
    rows = connection.execute(_SQL["exhume"], (_row_id(id),)).fetchall()
    return Message(*rows[0]) if rows else None


def discard(connection: sqlite3.Connection, ids: Iterable[str]) -> int:
    """Delete dead letters; return how many were there."""
    return connection.executemany(_SQL["discard"], [(_row_id(id),) for id in ids]).rowcount


def expire(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Delete dead letters that died before this, the oldest first; return how many."""
    return connection.execute(_SQL["expire"], (before, limit)).rowcount


def _row_id(id: str) -> int | None:
    """The row of an id; None, which is no row's, for what cannot be an id."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None


def _message(row: tuple[int, str, bytes, str, str, str, str, str, int, int, str, float]) -> DeadMessage:
    return DeadMessage(str(row[0]), *row[1:])
