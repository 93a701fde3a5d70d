"""Kombu transports for the stores that kombu has none for, so that remote control, events and Celery's commands work there.

Task queues are the broker's own; a queue that belongs to one listener (declared exclusive or to be deleted with its listener)
is a mailbox.  Exchanges route by bindings that are kept in the same store.

Made for talking to workers, not for consuming tasks: a task message that is fetched through it is taken out of its queue at
once, and goes back only when the channel is closed in order.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from queue import Empty
from typing import Any, NamedTuple

from kombu.exceptions import ChannelError
from kombu.transport import base, virtual
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid

from celeriac.broker import Broker
from celeriac.compat.transport.mailboxes import Binding, Mailboxes
from celeriac.errors import StoreError, StoreUnavailable
from celeriac.message import Message
from celeriac.outcome import Outcome, State

SEEN_EVERY = 15.0
"""Seconds between two signs of life of a listener: a quarter of what it may stay away."""

LONGEST_WAIT = 1.0
"""Seconds of one wait in a listener without a timeout, so that it notices when its connection is closed."""

LEASE_SECONDS = 30.0


class Store(NamedTuple):
    """One store as kombu's channels use it: the broker's queues and the mailboxes."""

    broker: Broker
    mailboxes: Mailboxes


class Channel(virtual.Channel):
    """One channel."""

    supports_fanout = True

    @property
    def _store(self) -> Store:
        store: Store = self.connection.store
        return store

    # -- declare ---------------------------------------------------------------------------------------------------

    def _new_queue(
        self, queue: str, auto_delete: bool = False, exclusive: bool = False, arguments: Any = None, **_: Any
    ) -> None:
        if auto_delete or exclusive:
            given = arguments or {}
            self.connection.mailboxes.add(queue)
            self._store.mailboxes.open(queue, _seconds(given.get("x-expires")), _seconds(given.get("x-message-ttl")))

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return True

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        self._store.mailboxes.bind(exchange, Binding(routing_key or "", pattern, queue))

    def queue_unbind(self, queue: str, exchange: Any = None, routing_key: str = "", *args: Any, **kwargs: Any) -> None:
        """See kombu's channel."""
        super().queue_unbind(queue, exchange, routing_key, *args, **kwargs)
        self._store.mailboxes.unbind(exchange, routing_key, queue)

    def get_table(self, exchange: str) -> list[Binding]:
        """Where an exchange sends to, whoever bound it."""
        return self._store.mailboxes.bindings(exchange)

    # -- messages --------------------------------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        self._put_all([queue], message)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str | None = None, **_: Any) -> None:
        self._put_all(sorted({binding.queue for binding in self.get_table(exchange)}), message)

    def _put_all(self, queues: list[str], message: dict[str, Any]) -> None:
        raw = dumps(message).encode()
        others = self._store.mailboxes.put(queues, raw) if queues else []
        priority = self._get_message_priority(message)
        self._store.broker.publish([Message(queue, raw, priority) for queue in others if queue])

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        mailboxes = self._store.mailboxes
        raw = mailboxes.take(queue)
        if raw is None and not mailboxes.is_open(queue):
            raw = fetch(self._store.broker, queue)
        if raw is None:
            raise Empty
        return loads(raw.decode())

    def _size(self, queue: str) -> int:
        return self._store.mailboxes.count(queue) or self._store.broker.depth([queue])[0].ready

    def _purge(self, queue: str) -> int:
        return self._store.mailboxes.empty(queue) + self._store.broker.purge(queue)

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        if self._store.mailboxes.is_open(queue):
            self._store.mailboxes.close(queue)
        else:
            self._store.broker.purge(queue)


def fetch(broker: Broker, queue: str) -> bytes | None:
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


class StoreTransport(virtual.Transport):
    """Kombu's transport for one kind of store."""

    Channel = Channel
    can_parse_url = True
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
        self.store = self.open_store(client)
        self.mailboxes: set[str] = set()
        """Those that this connection has opened."""
        self._seen_at = time.monotonic()

    def open_store(self, client: Any) -> Store:
        """The store at the URL of a kombu connection; one object per process."""
        raise NotImplementedError

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
            self.store.mailboxes.wait(self._listened(), min(left, LONGEST_WAIT))

    def _listened(self) -> list[str]:
        return [queue for channel in self.channels for queue in channel._active_queues]

    def _show_up(self) -> None:
        """Say that the listeners of this connection are alive.

        Raises:
            StoreUnavailable: they were away for so long that their mailboxes are gone.  A new connection opens them again.
        """
        if time.monotonic() - self._seen_at > SEEN_EVERY:
            mine = self.mailboxes.intersection(self._listened())
            if self.store.mailboxes.seen(mine) < len(mine):
                raise StoreUnavailable("This listener was away for too long; its mailbox is gone")
            self._seen_at = time.monotonic()
