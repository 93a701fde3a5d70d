"""Waiting for messages in many lists at once, without taking them.

``BLMOVE list list RIGHT RIGHT`` blocks until the list has a message and then moves its last message onto its own place:
it wakes the caller, and changes nothing, whoever sent the message.  It watches one list, so every list that is watched has
a connection of its own.  They are few: one waiter serves all slots of a node.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.pools import make_pool
from celeriac.brokers.redis.translation import translated
from celeriac.errors import StoreUnavailable

WATCH_SECONDS = 5
"""How long one watch lasts on the server before it is renewed.  Only matters for noticing a connection that died
without a word: after twice this time without an answer."""


class Watch:
    """One connection that watches one list."""

    __slots__ = ("connection", "key", "since")

    def __init__(self, connection: Any, key: str) -> None:
        self.connection = connection
        self.key = key
        self.since = 0.0

    @property
    def armed(self) -> bool:
        """Whether the server is still to answer."""
        return self.since > 0

    def arm(self) -> None:
        """Ask the server to say when the list has a message."""
        self.connection.send_command("BLMOVE", self.key, self.key, "RIGHT", "RIGHT", WATCH_SECONDS)
        self.since = time.monotonic()

    def answer(self) -> bool:
        """Read the server's answer: whether the list had a message."""
        self.since = 0.0
        return self.connection.read_response() is not None

    def check(self) -> None:
        """Raise when the server has not answered for too long."""
        if self.armed and time.monotonic() - self.since > 2 * WATCH_SECONDS:
            raise StoreUnavailable(f"Redis has not answered for {2 * WATCH_SECONDS} s on a watching connection")


class Arrivals:
    """Watches lists for one waiting thread."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._pool = make_pool(options)
        self._watches: dict[str, Watch] = {}

    def wait(self, keys: Sequence[str], timeout: float) -> bool:
        """Block until one of the lists has a message, up to ``timeout`` seconds; return whether one has."""
        try:
            with translated(self._options):
                return self._wait(keys, timeout)
        except Exception:
            self.close()
            raise

    def _wait(self, keys: Sequence[str], timeout: float) -> bool:
        watches = [self._armed(key) for key in keys]
        deadline = time.monotonic() + timeout
        while True:
            if self._answers(watches, deadline - time.monotonic()):
                return True
            for watch in watches:
                watch.check()
                if not watch.armed:
                    watch.arm()
            if time.monotonic() >= deadline:
                return False

    def _armed(self, key: str) -> Watch:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch(self._pool.get_connection(), key)
        if not watch.armed:
            watch.arm()
        return watch

    @staticmethod
    def _answers(watches: list[Watch], timeout: float) -> bool:
        # can_read() also looks into the parser's buffer and through TLS; poll() alone does not see what lies there.
        waiting = {_socket(watch).fileno(): watch for watch in watches}
        poller = select.poll()
        for fileno in waiting:
            poller.register(fileno, select.POLLIN)
        ready = [waiting[fileno] for fileno, _ in poller.poll(max(0.0, timeout) * 1000)]
        answers = [watch.answer() for watch in ready]  # every one must be read
        return any(answers)

    def close(self) -> None:
        """Give up all connections."""
        for watch in self._watches.values():
            watch.connection.disconnect()
            self._pool.release(watch.connection)
        self._watches.clear()


def _socket(watch: Watch) -> Any:
    sock = watch.connection._sock  # noqa: SLF001 - redis-py has no other way to wait for several
    if sock is None:
        raise StoreUnavailable("a watching connection was closed")
    return sock
