"""Connections that notice when a server has gone silent, and that a fork's child leaves alone."""

from __future__ import annotations

import select
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.waiting import Wait

from celeriac.postgres_store import arrays
from celeriac.postgres_store.options import PostgresOptions

_adapters = AdaptersMap(psycopg.adapters)
arrays.register(_adapters)


class Context:
    """What psycopg makes a connection's adapters from."""

    adapters = _adapters
    connection = None


class SilentError(psycopg.OperationalError):
    """The server has not answered in time."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of which every answer comes in time, or not at all."""

    answer_timeout = 10.0
    """Seconds."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """See psycopg: runs ``gen`` to its end.  Raises ``OperationalError`` when the server does not answer in time."""
        try:
            return super().wait(_in_time(gen, self.pgconn, self.answer_timeout), *args, **kwargs)
        except SilentError:
            self.pgconn.finish()  # or psycopg would wait as long again for the pipeline to end
            raise

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """See psycopg, which logs a warning when there is no answer within a pipeline; here that is an error and nothing else."""
        silent: SilentError | None = None
        try:
            with super().pipeline() as pipeline:
                try:
                    yield pipeline
                except SilentError as error:
                    silent = error
        except psycopg.Error:
            if silent is None:
                raise
        if silent is not None:
            raise silent

    def __del__(self, *_: Any) -> None:
        """Say nothing: connections go with the store that keeps them, and libpq's part closes itself (where it was made)."""

    @property
    def is_fresh(self) -> bool:
        """Whether it can be used: between transactions, and the server has not hung up.

        Nothing comes on a connection that nobody uses, so that anything to read there is the end of it.
        """
        if self.closed or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return not poll.poll(0)


def _in_time(gen: Any, pgconn: Any, seconds: float) -> Generator[Any, Any, Any]:
    """Runs a generator of psycopg's, which is told again and again that there is nothing, up to a time without any.

    In pipeline mode psycopg waits for answers when the last of what it sends may still be in libpq's buffer (anything that is longer
    than the socket takes at once); so what is there is sent on here.
    """
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield (wanted | Wait.W if pgconn.flush() else wanted)
            if ready:
                deadline = time.monotonic() + seconds
            elif time.monotonic() > deadline:
                raise SilentError(f"no answer within {seconds:g} s")
            if not ready or ready & wanted:
                wanted = gen.send(ready & wanted if ready else ready)
    except StopIteration as end:
        return end.value


def connect(options: PostgresOptions) -> Connection:
    """A new connection, in autocommit mode.  Raises psycopg's errors."""
    given: dict[str, Any] = {
        "connect_timeout": max(2, round(options.connect_timeout)),
        "client_encoding": "utf8",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    if options.synchronous_commit is not None:
        given["options"] = f"-c synchronous_commit={options.synchronous_commit}"
    known = psycopg.conninfo.conninfo_to_dict(options.conninfo)
    parameters = {**given, "application_name": options.application_name, **known}
    if "options" in known and "options" in given:
        parameters["options"] = f"{known['options']} {given['options']}"
    connection = Connection.connect("", autocommit=True, context=Context(), **parameters)
    connection.answer_timeout = options.answer_timeout
    return connection
