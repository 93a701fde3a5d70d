"""Mailboxes and bindings in a Celeriac SQLite file (see :mod:`celeriac.compat.transport.mailboxes`)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from celeriac.compat.transport import mailboxes
from celeriac.compat.transport.mailboxes import Binding
from celeriac.sqlite_store import LOCK_TIMEOUT, SQLiteStore, bell
from celeriac.sqlite_store.statements import statements

T = TypeVar("T")

_SQL = statements(__package__ or "", "mailboxes.sql")
_CREATE = ("create_mailboxes", "create_messages", "create_messages_index", "create_bindings", "create_bindings_index")


class SQLiteMailboxes:
    """The mailboxes of one file.  May be used by several threads, and across forks."""

    def __init__(self, path: str | Path) -> None:
        self.file = SQLiteStore(path, timeout=LOCK_TIMEOUT, synchronous="NORMAL")
        self._created = False

    @property
    def _bell(self) -> str:
        """The file whose bell rings for mailboxes: as lasting as the database, and used for nothing else."""
        return self.file.path + "-shm"

    # -- mailboxes -------------------------------------------------------------------------------------------------

    def open(self, name: str, idle: float | None, ttl: float | None) -> None:
        """Make a mailbox, or say that it is in use.  ``idle`` and ``ttl`` are in seconds; ``None`` takes the default."""
        now = time.time()
        row = (name, max(idle or 0.0, mailboxes.SHORTEST_IDLE), ttl or mailboxes.DEFAULT_TTL, now)

        def work(connection: sqlite3.Connection) -> None:
            forget_forsaken(connection, now)
            connection.execute(_SQL["open"], row)

        self._write(work)

    def seen(self, names: Iterable[str]) -> int:
        """Their listener is alive.  Returns how many of them are still there."""
        now = time.time()
        rows = [(now, name) for name in names]
        return self._write(lambda c: c.executemany(_SQL["seen"], rows).rowcount) if rows else 0

    def is_open(self, name: str) -> bool:
        """Whether there is a mailbox of this name."""
        return self._read(lambda c: c.execute(_SQL["is_open"], (name,)).fetchone() is not None)

    def close(self, name: str) -> None:
        """Forget a mailbox, what is in it, and its bindings."""
        self._write(lambda c: forget(c, name))

    # -- messages --------------------------------------------------------------------------------------------------

    def put(self, names: Sequence[str], raw: bytes) -> list[str]:
        """Put a message into mailboxes; return the names that are none, for the caller to deal with."""
        now = time.time()

        def work(connection: sqlite3.Connection) -> list[str]:
            return [name for name in names if not put_into(connection, name, raw, now)]

        others = self._write(work)
        if len(others) < len(names):
            bell.ring(self._bell)
        return others

    def take(self, name: str) -> bytes | None:
        """Take the oldest message out; ``None`` when there is none."""
        if not self._read(lambda c: any_in(c, [name])):
            return None
        row = self._write(lambda c: c.execute(_SQL["take"], (name,)).fetchone())
        return None if row is None else bytes(row[0])

    def wait(self, names: Sequence[str], timeout: float) -> bool:
        """Block until one of the mailboxes has a message, up to ``timeout`` seconds; return whether one has."""
        self._create()
        return self.file.wait(self._bell, lambda c: any_in(c, names), timeout)

    def count(self, name: str) -> int:
        """How many messages wait in it."""
        return int(self._read(lambda c: c.execute(_SQL["count"], (name,)).fetchone()[0]))

    def empty(self, name: str) -> int:
        """Throw away what is in it; return how many that was."""
        return self._write(lambda c: c.execute(_SQL["empty"], (name,)).rowcount)

    # -- bindings --------------------------------------------------------------------------------------------------

    def bind(self, exchange: str, binding: Binding) -> None:
        """Have an exchange send to a queue."""
        row = (exchange, binding.routing_key, binding.pattern or "", binding.queue)
        self._write(lambda c: c.execute(_SQL["bind"], row))

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Undo :meth:`bind`."""
        self._write(lambda c: c.execute(_SQL["unbind"], (exchange, routing_key, queue)))

    def bindings(self, exchange: str) -> list[Binding]:
        """Where an exchange sends to."""
        rows = self._read(lambda c: c.execute(_SQL["table"], (exchange,)).fetchall())
        return [Binding(key, pattern or None, queue) for key, pattern, queue in rows]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._create()
        return self.file.read(work)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._create()
        return self.file.write(work)

    def _create(self) -> None:
        """Make the tables.  Not part of the broker's schema: a file without them is as good."""
        if not self._created:
            self.file.write(create_tables)
            self._created = True


def create_tables(connection: sqlite3.Connection) -> None:
    """Make what is missing."""
    for name in _CREATE:
        connection.execute(_SQL[name])


def any_in(connection: sqlite3.Connection, names: Iterable[str]) -> bool:
    """Whether a message waits in any of these mailboxes."""
    return any(connection.execute(_SQL["any"], (name,)).fetchone() for name in names)


def put_into(connection: sqlite3.Connection, name: str, raw: bytes, now: float) -> bool:
    """Put a message into a mailbox and drop what is too old there; return False when there is no such mailbox."""
    row = connection.execute(_SQL["is_open"], (name,)).fetchone()
    if row is None:
        return False
    connection.execute(_SQL["drop_old"], (name, now - row[0]))
    connection.execute(_SQL["put"], (name, now, raw))
    return True


def forget(connection: sqlite3.Connection, name: str) -> None:
    """Delete a mailbox with all that belongs to it."""
    for statement in ("close", "empty", "unbind_queue"):
        connection.execute(_SQL[statement], (name,))


def forget_forsaken(connection: sqlite3.Connection, now: float) -> None:
    """Delete mailboxes whose listener has gone without a word."""
    for (name,) in connection.execute(_SQL["forsaken"], (now,)).fetchall():
        forget(connection, name)
