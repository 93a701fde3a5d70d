"""Waiting for messages: by notification, with a slow look behind it; by looking alone where there are no notifications."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from celeriac.postgres_store.arrays import Texts
from celeriac.postgres_store.connection import Connection
from celeriac.postgres_store.polling import poll
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call, PostgresStore

LOOK_SECONDS = 1.0
"""Between looks of who is woken by notifications: bounds the delay when a sender died between its commit and the
notification."""


class Arrivals:
    """Watches queues for one waiting thread, on a connection of its own."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._sql = statements(__package__ or "", "wait.sql", store.options.schema)
        self._connection: Connection | None = None

    def wait(self, queues: Sequence[str], timeout: float, look: Call) -> bool:
        """Block until one of the queues has a message, up to ``timeout`` seconds; return whether one may have.

        Args:
            queues: their names.
            timeout: seconds.
            look: the statement that tells whether one of them has a message.
        """
        if not self._store.notifies:
            return poll(lambda: bool(self._store.value(look)), timeout)
        try:
            with self._store.translating():
                return self._wait(list(queues), time.monotonic() + timeout, look)
        except BaseException:
            self.close()
            raise

    def _wait(self, queues: list[str], deadline: float, look: Call) -> bool:
        connection = self._listening()
        known = self._watch(connection, queues)
        try:
            while not self._look(connection, look):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                if self._rings(connection, known, min(remaining, LOOK_SECONDS)):
                    return True
            return True
        finally:
            self._unwatch(connection)

    def _watch(self, connection: Connection, queues: list[str]) -> set[str]:
        """Make it known that somebody waits; return what notifications of these queues say."""
        self._store.round_trips += 1
        with connection.pipeline() as pipeline:
            connection.execute(self._sql["listen"])
            pipeline.sync()
            keys = connection.execute(self._sql["watch"], (Texts(queues),))
            return {key for (key,) in keys.fetchall()}

    def _unwatch(self, connection: Connection) -> None:
        with suppress(psycopg.Error), connection.pipeline():
            connection.execute(self._sql["unwatch"])
            connection.execute(self._sql["unlisten"])
        for _ in connection.notifies(timeout=0):
            pass

    def _look(self, connection: Connection, look: Call) -> bool:
        self._store.round_trips += 1
        row = connection.execute(*look).fetchone()
        return row is not None and bool(row[0])

    @staticmethod
    def _rings(connection: Connection, known: set[str], seconds: float) -> bool:
        """Whether a notification of a watched queue came within some seconds."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if any(notify.payload in known for notify in connection.notifies(timeout=remaining, stop_after=1)):
                return True
        return False

    def _listening(self) -> Connection:
        connection = self._connection
        if connection is None or not connection.is_fresh:
            self.close()
            connection = self._connection = self._store.open()
        return connection

    def close(self) -> None:
        """Give up the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
