"""Dead letters: a durable, bounded queue behind an exchange of its own.

What is known about a letter stands in its headers, readable in any tool; its body is the message as it was, properties
included.  Looking means taking all of them and giving them back: RabbitMQ puts each where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from pamqp.base import Frame

from celeriac.broker import DeadMessage
from celeriac.brokers.rabbitmq import properties, wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import WORK, Connection
from celeriac.brokers.rabbitmq.methods import bind_queue, declare_exchange, declare_lock, declare_queue, delete_queue
from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.brokers.rabbitmq.own_queues import Arguments, declare
from celeriac.brokers.rabbitmq.wire import Entry
from celeriac.errors import StoreUnavailable
from celeriac.message import Delivery
from celeriac.outcome import DeadLetter, DeadReason

EXCHANGE = QUEUE = "celeriac.dead"
LOCK = "celeriac.dead.lock"
LOCK_SECONDS = 10.0
"""Heartbeat of a connection that has taken the dead letters: if its process is paused, they come back after about twice as long."""

CONTENT_TYPE = "application/x-celeriac-parcel"
_PREFIX = "celeriac-dead-"

_REASONS = {"maxlen": DeadReason.OVERFLOW.value, "rejected": DeadReason.REJECTED.value}
"""The server's words for why it puts a message here itself."""


def letter_entry(delivery: Delivery, letter: DeadLetter) -> Entry:
    """A dead letter on its way."""
    at = letter.at or time.time()
    headers: dict[str, Any] = {
        f"{_PREFIX}{name}": getattr(letter, name)
        for name in ("reason", "error", "task_id", "traceback", "attempts", "crashes", "worker")
    }
    headers.update({f"{_PREFIX}task": letter.task, f"{_PREFIX}queue": delivery.queue, f"{_PREFIX}at": at})
    number = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
    lasting = properties.encode(
        {"delivery_mode": 2, "content_type": CONTENT_TYPE, "headers": headers, "message_id": number}
    )
    return Entry(EXCHANGE.encode(), b"", lasting, delivery.raw)


class Letter:
    """A dead letter that was taken from the queue for a moment."""

    def __init__(self, got: wire.Gotten) -> None:
        self.tag = got.tag
        self._properties, self.raw = wire.content(got.raw)
        self._found = properties.decode(self._properties)
        self._by_server = self._found.get("content_type") != CONTENT_TYPE
        if self._by_server:
            self.raw = got.raw
            self.id = f"{_died_at(self._headers):010.0f}{'0' * 10}-{self._headers.get('id') or got.tag}"
        else:
            self.id = self._found.get("message_id") or f"{got.tag:020d}-foreign"

    @property
    def _headers(self) -> dict[str, Any]:
        return self._found.get("headers") or {}

    def message(self) -> DeadMessage:
        """The letter as the contract has it."""
        if self._by_server:
            return self._put_here_by_server()
        headers = self._headers

        def told(name: str, default: Any) -> Any:
            return headers.get(_PREFIX + name, default)

        return DeadMessage(
            id=self.id, queue=told("queue", ""), raw=self.raw, reason=told("reason", ""), error=told("error", ""),
            task=told("task", ""), task_id=told("task_id", ""), traceback=told("traceback", ""),
            attempts=told("attempts", 0), crashes=told("crashes", 0), worker=told("worker", ""), at=told("at", 0.0),
        )  # fmt: skip

    def _put_here_by_server(self) -> DeadMessage:
        """A message for which its queue had no room, or that its queue let go for another reason of the server's own."""
        headers = self._headers
        reason, queue = (str(headers.get(f"x-first-death-{name}", "")) for name in ("reason", "queue"))
        return DeadMessage(
            id=self.id, queue=queue, raw=self.raw, reason=_REASONS.get(reason, reason),
            error=f"RabbitMQ took it out of its queue: {reason}", task=str(headers.get("task", "")),
            task_id=str(headers.get("id", "")), traceback="", attempts=headers.get("retries") or 0, crashes=0, worker="",
            at=_died_at(headers),
        )  # fmt: skip


def _died_at(headers: dict[str, Any]) -> float:
    """When the server put a message here: seconds since the epoch; 0: it does not say."""
    deaths = headers.get("x-death")
    moment = deaths[0].get("time") if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else None
    return moment.timestamp() if isinstance(moment, datetime) else float(moment or 0)


class DeadLetters:
    """The queue of dead letters."""

    def __init__(self, options: RabbitOptions, publishing: Connection) -> None:
        self._connection = publishing
        self._looking = Connection(replace(options, heartbeat=LOCK_SECONDS), "looks at dead letters")
        self._looking.beats = True
        self._limit = options.dead_limit
        self._declared_at = -1.0

    def need(self) -> None:
        """See to it that there is a place for dead letters."""
        self._connection.ensure()
        if self._declared_at == self._connection.connected_at:
            return
        try:
            self._connection.call(declare_queue(QUEUE, passive=True))
        except ChannelClosed as error:
            if error.code != 404:
                raise
            declare(self._connection, QUEUE, self._declarations)
        self._declared_at = self._connection.connected_at

    def _declarations(self, kind: Arguments) -> list[Frame]:
        bounds = {"x-max-length": self._limit, "x-overflow": "drop-head", **kind}
        return [declare_exchange(EXCHANGE, "fanout"), declare_queue(QUEUE, bounds), bind_queue(QUEUE, EXCHANGE, "")]

    def count(self) -> int:
        """How many there are."""
        self.need()
        (answer,) = self._connection.call(declare_queue(QUEUE, passive=True))
        count: int = answer.message_count
        return count

    @contextmanager
    def taken(self) -> Iterator[list[Letter]]:
        """Have all letters to oneself, oldest first.  What is not acknowledged goes back to where it was."""
        connection = self._looking
        with connection.lock:
            try:
                self.need()
                self._acquire()
                connection.pinned = True
                letters = [Letter(got) for got in connection.get(QUEUE.encode(), self._limit)]
                yield letters
                connection.send(wire.requeue_frame(WORK, letter.tag, multiple=False) for letter in letters)
                connection.call(delete_queue(LOCK))
            finally:
                connection.abandon()  # with which the server frees whatever is left

    def _acquire(self) -> None:
        deadline = time.monotonic() + max(self._looking.options.answer_timeout, 4 * LOCK_SECONDS)
        while True:
            try:
                self._looking.call(declare_lock(LOCK))
            except ChannelClosed as error:
                if error.code != 405:
                    raise
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"{LOCK} was held by another process for too long") from error
                time.sleep(0.005)
            else:
                return

    def newest(self, limit: int, before: str | None) -> list[DeadMessage]:
        """Letters, newest first."""
        with self.taken() as letters:
            chosen = [letter for letter in reversed(letters) if before is None or letter.id < before]
            return [letter.message() for letter in chosen[:limit]]

    def find(self, id: str) -> DeadMessage | None:
        """One letter."""
        with self.taken() as letters:
            return next((letter.message() for letter in letters if letter.id == id), None)

    @contextmanager
    def claim(self, ids: Iterable[str]) -> Iterator[list[Letter]]:
        """Letters that are deleted unless the block raises."""
        wanted = set(ids)
        with self.taken() as letters:
            chosen = [letter for letter in letters if letter.id in wanted]
            yield chosen
            self._looking.send(wire.ack_frame(WORK, letter.tag, multiple=False) for letter in chosen)
            letters[:] = [letter for letter in letters if letter.id not in wanted]
