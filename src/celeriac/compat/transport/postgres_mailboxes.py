"""Mailboxes and bindings in a PostgreSQL schema (see :mod:`celeriac.compat.transport.mailboxes`)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celeriac.compat.transport import mailboxes
from celeriac.compat.transport.mailboxes import Binding
from celeriac.postgres_store import PostgresStore
from celeriac.postgres_store.arrays import Texts
from celeriac.postgres_store.arrivals import Arrivals
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call, Row


class PostgresMailboxes:
    """The mailboxes of one schema.  May be used by several threads, and across forks."""

    def __init__(self, database: PostgresStore) -> None:
        self._database = database
        self._sql = statements(__package__ or "", "postgres_mailboxes.sql", database.options.schema)
        self._lock = threading.Lock()
        self._listeners: list[Arrivals] = []

    # -- mailboxes -------------------------------------------------------------------------------------------------

    def open(self, name: str, idle: float | None, ttl: float | None) -> None:
        """See :meth:`Mailboxes.open`."""
        self._rows("forget_forsaken")
        self._rows("open", name, max(idle or 0.0, mailboxes.SHORTEST_IDLE), ttl or mailboxes.DEFAULT_TTL)

    def seen(self, names: Iterable[str]) -> int:
        """See :meth:`Mailboxes.seen`."""
        return int(self._rows("seen", Texts(names))[0][0])

    def is_open(self, name: str) -> bool:
        """See :meth:`Mailboxes.is_open`."""
        return bool(self._rows("is_open", name)[0][0])

    def close(self, name: str) -> None:
        """See :meth:`Mailboxes.close`."""
        self._rows("close", Texts([name]))

    # -- messages --------------------------------------------------------------------------------------------------

    def put(self, names: Sequence[str], raw: bytes) -> list[str]:
        """See :meth:`Mailboxes.put`."""
        announcement = Call(self._sql["announce"], (Texts(names),))
        return [name for (name,) in self._rows("put", Texts(names), raw, after=announcement)]

    def take(self, name: str) -> bytes | None:
        """See :meth:`Mailboxes.take`."""
        rows = self._rows("take", name)
        return bytes(rows[0][0]) if rows else None

    def wait(self, names: Sequence[str], timeout: float) -> bool:
        """See :meth:`Mailboxes.wait`."""
        look = Call(self._sql["any"], (Texts(names),))
        with self._listener() as listener:
            return listener.wait(names, timeout, look)

    def count(self, name: str) -> int:
        """See :meth:`Mailboxes.count`."""
        return int(self._rows("count", name)[0][0])

    def empty(self, name: str) -> int:
        """See :meth:`Mailboxes.empty`."""
        return int(self._rows("empty", name)[0][0])

    # -- bindings --------------------------------------------------------------------------------------------------

    def bind(self, exchange: str, binding: Binding) -> None:
        """See :meth:`Mailboxes.bind`."""
        self._rows("bind", exchange, binding.routing_key, binding.pattern or "", binding.queue)

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """See :meth:`Mailboxes.unbind`."""
        self._rows("unbind", exchange, routing_key, queue)

    def bindings(self, exchange: str) -> list[Binding]:
        """See :meth:`Mailboxes.bindings`."""
        return [Binding(key, pattern or None, queue) for key, pattern, queue in self._rows("table", exchange)]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _rows(self, name: str, *arguments: Any, after: Call | None = None) -> list[Row]:
        return self._database.rows(Call(self._sql[name], arguments), after)

    @contextmanager
    def _listener(self) -> Iterator[Arrivals]:
        """One that no other thread waits with.  It keeps its connection for the next time."""
        with self._lock:
            listener = self._listeners.pop() if self._listeners else Arrivals(self._database)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.append(listener)
