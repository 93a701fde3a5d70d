"""Connections to one database, and statements that are each a transaction of their own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import psycopg

from celeriac.errors import ConfigurationError
from celeriac.postgres_store import schema
from celeriac.postgres_store.connection import Connection, connect
from celeriac.postgres_store.failures import TRY_AGAIN, translated
from celeriac.postgres_store.options import PostgresOptions, safe_url

T = TypeVar("T")
Row = tuple[Any, ...]

_SCHEMA_GONE = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
)

_ATTEMPTS = 5
"""Of a statement that the server rolled back because of others (a deadlock, say)."""


class Call(NamedTuple):
    """One statement with its arguments."""

    statement: bytes
    arguments: Sequence[Any] | dict[str, Any] = ()


class PostgresStore:
    """One schema of one database, for the threads of one process.

    Each call borrows a connection that no other thread uses meanwhile, and runs one statement in a transaction of its own.
    A child process of a fork starts without connections; the parent's are neither used nor closed there.

    Raises:
        ConfigurationError: the URL or an option cannot work.  The server is looked at when it is first used.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options
        self.url = options.safe_url()
        self.round_trips = 0
        self.address = _address(options)
        """Tells stores apart: server, database, schema."""
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._generation = 0
        self._pooled: bool | None = None
        _STORES.add(self)

    # -- statements ------------------------------------------------------------------------------------------------

    def rows(self, call: Call, after: Call | None = None) -> list[Row]:
        """Run one statement and return its rows.

        Args:
            call: the statement.
            after: a second one that is run in a transaction of its own after the first is committed, in the same round
                trip.  Its rows are not returned.
        """
        return self.use(lambda connection: self._run(connection, call, after))

    def value(self, call: Call, after: Call | None = None) -> Any:
        """The first column of the first row."""
        return self.rows(call, after)[0][0]

    def copy(self, statement: bytes, data: Sequence[bytes], after: Call) -> None:
        """Run a COPY from here with these data: two round trips.

        Args:
            statement: the COPY.
            data: what it reads, in pieces.
            after: a statement that is run after it, in a third; should the connection be lost then, it is left out.
        """
        self.use(lambda connection: self._copy(connection, statement, data, after))

    def _copy(self, connection: Connection, statement: bytes, data: Sequence[bytes], after: Call) -> None:
        self.round_trips += 3
        with connection.cursor().copy(statement) as copy:
            for piece in data:
                copy.write(piece)
        with suppress(psycopg.OperationalError):
            connection.execute(*after)

    def use(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection, again when the server rolled it back because of others."""
        with self.translating():
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._borrowed() as connection:
                        return work(connection)
                except psycopg.errors.OperationalError as error:
                    if error.sqlstate not in TRY_AGAIN or attempt == _ATTEMPTS:
                        raise
        raise AssertionError  # the loop returns or raises

    def _run(self, connection: Connection, call: Call, after: Call | None) -> list[Row]:
        self.round_trips += 1
        if after is None:
            return _fetch(connection.cursor(binary=True).execute(*call))
        with connection.pipeline() as pipeline:
            cursor = connection.cursor(binary=True).execute(*call)
            pipeline.sync()
            connection.cursor().execute(*after)
            return _fetch(cursor)

    def prepare(self) -> None:
        """Look at server and schema, and bring the schema up to date when this role may."""
        with self.translating(), self._borrowed():
            pass

    @property
    def notifies(self) -> bool:
        """Whether LISTEN works here.  Goes to the server the first time."""
        if self.options.notify is not None:
            return self.options.notify
        if self._pooled is None:
            self.prepare()
        return not self._pooled

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Raise psycopg's errors as this package's own."""
        try:
            yield
        except (psycopg.Error, OSError) as error:
            raise translated(error, self.options) from error

    # -- schema ----------------------------------------------------------------------------------------------------

    def migrate(self) -> list[int]:
        """Bring the schema up to date; return the versions that were missing."""
        with self.translating(), connect(self.options) as connection:
            return schema.migrate(connection, self.options)

    def version(self) -> int:
        """The schema's version; 0 when there is none."""
        with self.translating(), connect(self.options) as connection:
            return schema.applied(connection, self.options)[0]

    def script(self) -> str:
        """The SQL that makes or updates the schema, for a person to read and run; empty when there is nothing to do."""
        return schema.script(self.options.schema, after=self.version())

    # -- connections -----------------------------------------------------------------------------------------------

    def open(self) -> Connection:
        """A new connection to a schema that is as it must be; the caller closes it.  Raises psycopg's errors."""
        connection = connect(self.options)
        try:
            if self._pooled is None:
                schema.prepare(connection, self.options)
                # A pooler makes up the process id that it tells.
                backend = connection.execute("SELECT pg_backend_pid()").fetchone()
                self._pooled = backend is not None and backend[0] != connection.info.backend_pid
            if self._pooled:
                # The next statement may go to another server process, which knows nothing of what was prepared.
                connection.prepare_threshold = None
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        generation, connection = self._take()
        try:
            yield connection
        except _SCHEMA_GONE:
            self._pooled = None  # the next connection looks at the schema again
            self.close()
            raise
        finally:
            self._give_back(generation, connection)

    def _take(self) -> tuple[int, Connection]:
        while True:
            with self._lock:
                generation = self._generation
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return generation, self.open()
            if connection.is_fresh:
                return generation, connection
            _close(connection)  # the server has hung up since

    def _give_back(self, generation: int, connection: Connection) -> None:
        with self._lock:
            if generation == self._generation and connection.is_fresh:
                self._idle.append(connection)
                return
        _close(connection)

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            _close(connection)

    def leave_to_parent(self) -> None:
        """In the child of a fork: begin without connections, and leave the parent's alone."""
        # A new lock: another thread of the parent's may have held the old one, and does not exist here.
        self._lock = threading.Lock()
        _ABANDONED.extend(self._idle)
        self._idle = []
        self._generation += 1


def _fetch(cursor: psycopg.Cursor[Row]) -> list[Row]:
    return cursor.fetchall() if cursor.description else []


def _close(connection: Connection) -> None:
    with suppress(psycopg.Error):
        connection.close()


def _address(options: PostgresOptions) -> tuple[str, ...]:
    try:
        known = psycopg.conninfo.conninfo_to_dict(options.conninfo)
    except psycopg.Error as error:
        # libpq may quote the password where it does not understand it.
        reason = str(error).strip() if safe_url(options.url) == options.url else str(error).partition(":")[0].strip()
        raise ConfigurationError(f"{options.safe_url()} is not a PostgreSQL URL: {reason}") from None
    names = ("host", "hostaddr", "port", "dbname", "user")
    host, hostaddr, port, database, user = (
        str(known.get(name) or os.environ.get(_ENVIRONMENT[name], "")) for name in names
    )
    if not all(number.isdigit() for number in port.split(",") if number):
        raise ConfigurationError(f"{options.safe_url()}: the port must be a number, not {port!r}")
    return hostaddr or host, port or "5432", database or user, options.schema


_ENVIRONMENT = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}
"""Where libpq looks for what a URL leaves out."""

_STORES: weakref.WeakSet[PostgresStore] = weakref.WeakSet()

_ABANDONED: list[Connection] = []
"""Connections that belong to the parent process: kept, so that the garbage collector does not close them here."""


def _after_fork() -> None:
    for store in list(_STORES):
        store.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
