"""Commands of the hot path, sent without redis-py's client around its connection.

Taking a connection from the pool, seeing whether it is alive, and trying again when it is not take redis-py longer than most of
our commands take the server.  Here each thread keeps one connection, and only one that has rested is looked at first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from celeriac.brokers.redis.translation import is_readonly

RESTED_SECONDS = 1.0
"""After so long without use a connection may have been closed by the server or by something on the way."""


class Held:
    """What a thread keeps.  When the thread ends this goes, and its connection is closed there and then."""

    __slots__ = ("connection", "used_at")

    def __init__(self) -> None:
        self.connection: Any = None
        self.used_at = 0.0

    def close(self) -> None:
        """Give up the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.disconnect()

    def __del__(self) -> None:
        """redis-py's connection refers to itself, so that it would stay open until the collector comes by."""
        with suppress(Exception):
            self.close()


class Wire:
    """One connection per thread to one server."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._mine = threading.local()

    def execute(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one round trip and return their replies; an error reply is returned, not raised.

        Raises:
            redis.exceptions.RedisError, OSError: the connection failed; the commands may or may not have been carried out.
        """
        connection = self._take()
        try:
            packed = connection.pack_command(*commands[0]) if len(commands) == 1 else connection.pack_commands(commands)
            connection.send_packed_command(packed, check_health=False)
            replies = [_reply(connection) for _ in commands]
        except BaseException:  # also an exception that a signal's handler raised: the replies are still to come
            connection.disconnect()
            raise
        if any(isinstance(reply, Exception) and is_readonly(reply) for reply in replies):
            # It was the master when it was connected to.  The next connection goes to whoever is it by then.
            connection.disconnect()
        else:
            self._give_back(connection)
        return replies

    def _take(self) -> Any:
        """This thread's connection.  It is nobody's while it is in use, so that a signal's handler that sends opens another."""
        held = self._held()
        connection, held.connection = held.connection, None
        if connection is not None and time.monotonic() - held.used_at > RESTED_SECONDS and _is_closed(connection):
            connection.disconnect()
            connection = None
        if connection is None:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            connection.connect()
        return connection

    def _give_back(self, connection: Any) -> None:
        held = self._held()
        if held.connection is not None:  # the other's, which has ended meanwhile
            connection.disconnect()
            return
        held.connection = connection
        held.used_at = time.monotonic()

    def _held(self) -> Held:
        try:
            return self._mine.held  # type: ignore[no-any-return]
        except AttributeError:
            held = self._mine.held = Held()
            return held

    def close(self) -> None:
        """Give up this thread's connection.  Those of other threads go with their threads."""
        self._held().close()


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


def _is_closed(connection: Any) -> bool:
    """Whether a connection that waits for nothing has something to say: that it was closed."""
    try:
        return bool(connection.can_read(timeout=0))
    except (redis.exceptions.ConnectionError, OSError):
        return True
