"""A kombu transport for ``sqlite://`` URLs, so that remote control, events and Celery's commands work on the embedded default.

Task queues are the broker's own, in the same file; a queue that belongs to one listener (declared exclusive or to be deleted
with its listener) is a mailbox.  Exchanges route by bindings that are kept in the file.

Made for talking to workers, not for consuming tasks: a task message that is fetched through it is taken out of its queue at
once, and goes back only when the channel is closed in order.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import base, virtual
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid

from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.compat.sqlite_mailboxes import Binding, Mailboxes
from celeriac.errors import StoreError, StoreUnavailable
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from celeriac.sqlite_store import path_from_url

SEEN_EVERY = 15.0
"""Seconds between two signs of life of a listener: a quarter of what it may stay away."""

LONGEST_WAIT = 1.0
"""Seconds of one wait in a listener without a timeout, so that it notices when its connection is closed."""

LEASE_SECONDS = 30.0


class File:
    """One file as kombu's channels use it: the broker's queues and the mailboxes."""

    def __init__(self, path: str) -> None:
        self.broker = SQLiteBroker(path)
        self.mailboxes = Mailboxes(path)


_files: dict[str, File] = {}
_lock = threading.Lock()


def file_of(path: str) -> File:
    """The file's object, one per process: connections are shared, and survive a fork."""
    path = os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links
    with _lock:
        found = _files.get(path)
        if found is None:
            found = _files[path] = File(path)
        return found


class Channel(virtual.Channel):
    """One channel."""

    supports_fanout = True

    @property
    def _file(self) -> File:
        file: File = self.connection.file
        return file

    # -- declare ---------------------------------------------------------------------------------------------------

    def _new_queue(
        self, queue: str, auto_delete: bool = False, exclusive: bool = False, arguments: Any = None, **_: Any
    ) -> None:
        if auto_delete or exclusive:
            given = arguments or {}
            self.connection.mailboxes.add(queue)
            self._file.mailboxes.open(queue, _seconds(given.get("x-expires")), _seconds(given.get("x-message-ttl")))

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return True

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        self._file.mailboxes.bind(exchange, Binding(routing_key or "", pattern, queue))

    def queue_unbind(self, queue: str, exchange: Any = None, routing_key: str = "", *args: Any, **kwargs: Any) -> None:
        """See kombu's channel."""
        super().queue_unbind(queue, exchange, routing_key, *args, **kwargs)
        self._file.mailboxes.unbind(exchange, routing_key, queue)

    def get_table(self, exchange: str) -> list[Binding]:
        """Where an exchange sends to, whoever bound it."""
        return self._file.mailboxes.bindings(exchange)

    # -- messages --------------------------------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        self._put_all([queue], message)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str | None = None, **_: Any) -> None:
        self._put_all(sorted({binding.queue for binding in self.get_table(exchange)}), message)

    def _put_all(self, queues: list[str], message: dict[str, Any]) -> None:
        raw = dumps(message).encode()
        others = self._file.mailboxes.put(queues, raw) if queues else []
        priority = self._get_message_priority(message)
        self._file.broker.publish([Message(queue, raw, priority) for queue in others if queue])

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        mailboxes = self._file.mailboxes
        raw = mailboxes.take(queue)
        if raw is None and not mailboxes.is_open(queue):
            raw = fetch(self._file.broker, queue)
        if raw is None:
            raise Empty
        return loads(raw.decode())

    def _size(self, queue: str) -> int:
        return self._file.mailboxes.count(queue) or self._file.broker.depth([queue])[0].ready

    def _purge(self, queue: str) -> int:
        return self._file.mailboxes.empty(queue) + self._file.broker.purge(queue)

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        if self._file.mailboxes.is_open(queue):
            self._file.mailboxes.close(queue)
        else:
            self._file.broker.purge(queue)


def fetch(broker: SQLiteBroker, queue: str) -> bytes | None:
    """Take one task message out of its queue."""
    if not broker.depth([queue])[0].ready:
        return None
    owner = f"kombu:{uuid()}"
    broker.register(owner, [], LEASE_SECONDS)
    leased = broker.lease(owner, [queue], 1)
    broker.settle(owner, [Outcome(delivery, State.SUCCEEDED) for delivery in leased])
    broker.unregister(owner)
    return leased[0].raw if leased else None


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


class Transport(virtual.Transport):
    """Kombu's transport for ``sqlite:///file``."""

    Channel = Channel
    can_parse_url = True
    driver_type = "sqlite"
    driver_name = "celeriac"
    connection_errors: tuple[type[Exception], ...] = (  # type: ignore[assignment]
        *virtual.Transport.connection_errors,
        StoreUnavailable,
    )
    channel_errors: tuple[type[Exception], ...] = (  # type: ignore[assignment]
        *virtual.Transport.channel_errors,
        ChannelError,
        StoreError,
    )
    implements = base.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset({"direct", "topic", "fanout"}), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.file = file_of(path_from_url(client.hostname))
        self.mailboxes: set[str] = set()
        """Those that this connection has opened."""
        self._seen_at = time.monotonic()

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message.  Raises ``socket.timeout`` when none came within ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._show_up()
            with suppress(Empty):
                self.cycle.get(self._deliver, timeout=0)  # type: ignore[union-attr]
                return
            left = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout  # noqa: UP041 - kombu's word; the same only from Python 3.10 on
            self.file.mailboxes.wait(self._listened(), min(left, LONGEST_WAIT))

    def _listened(self) -> list[str]:
        return [queue for channel in self.channels for queue in channel._active_queues]

    def _show_up(self) -> None:
        """Say that the listeners of this connection are alive.

        Raises:
            StoreUnavailable: they were away for so long that their mailboxes are gone.  A new connection opens them again.
        """
        if time.monotonic() - self._seen_at > SEEN_EVERY:
            mine = self.mailboxes.intersection(self._listened())
            if self.file.mailboxes.seen(mine) < len(mine):
                raise StoreUnavailable("This listener was away for too long; its mailbox is gone")
            self._seen_at = time.monotonic()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The URL; there is no password in it."""
        return uri

    def driver_version(self) -> str:
        """Of the library that is under it."""
        import sqlite3

        return sqlite3.sqlite_version
