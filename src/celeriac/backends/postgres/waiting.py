"""Waiting for results: by notification, with a slow look behind it; by looking alone where there are no notifications."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg

from celeriac.backend import FINAL_STATES
from celeriac.postgres_store.arrays import Texts
from celeriac.postgres_store.connection import Connection
from celeriac.postgres_store.polling import poll
from celeriac.postgres_store.store import Call, PostgresStore

LOOK_SECONDS = 1.0
"""Between looks of who is woken by notifications: bounds the delay when a writer died between its commit and the
notification."""

Seen = dict[str, tuple[Any, ...]]


class Waiting:
    """Waits in any number of threads, each on a connection that it borrows."""

    def __init__(self, store: PostgresStore, sql: dict[str, bytes]) -> None:
        self._store = store
        self._sql = sql

    def wait(self, task_ids: Sequence[str], timeout: float) -> bool:
        """See :meth:`celeriac.backend.Backend.wait`."""
        if not self._store.notifies:
            changed = Change()
            seen = Call(self._sql["seen"], (Texts(task_ids),))
            return poll(lambda: changed(self._store.rows(seen)), timeout)
        return self._store.use(lambda connection: self._wait(connection, task_ids, timeout))

    def _wait(self, connection: Connection, task_ids: Sequence[str], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        changed = Change()
        seen = Call(self._sql["seen"], (Texts(task_ids),))
        with self._watching(connection, task_ids):
            while not changed(self._look(connection, seen)):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                for _ in connection.notifies(timeout=min(remaining, LOOK_SECONDS), stop_after=1):
                    return True
            return True

    def _look(self, connection: Connection, seen: Call) -> list[tuple[Any, ...]]:
        self._store.round_trips += 1
        return connection.execute(*seen).fetchall()

    @contextmanager
    def _watching(self, connection: Connection, task_ids: Sequence[str]) -> Iterator[None]:
        """Make it known that somebody waits for these tasks."""
        channel = f"{self._store.options.schema}.{uuid4().hex[:20]}"
        self._store.round_trips += 1
        with connection.pipeline() as pipeline:
            connection.execute(f'LISTEN "{channel}"'.encode())
            pipeline.sync()
            connection.execute("SET synchronous_commit = off")
            connection.execute(self._sql["watch"], (channel, Texts(task_ids)))
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                with connection.pipeline():
                    connection.execute(self._sql["unwatch"], (channel,))
                    connection.execute("UNLISTEN *")
                    connection.execute("RESET synchronous_commit")
                for _ in connection.notifies(timeout=0):
                    pass


class Change:
    """Tells whether something changed since the first look, or was final then."""

    def __init__(self) -> None:
        self._first: Seen | None = None

    def __call__(self, rows: list[tuple[Any, ...]]) -> bool:
        """Take what was seen now."""
        seen = {task_id: (state, at) for task_id, state, at in rows}
        if self._first is None:
            self._first = seen
            return any(state in FINAL_STATES for state, _ in seen.values())
        return seen != self._first
