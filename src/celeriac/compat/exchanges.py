"""What exchanges have to do with a worker's queues.

The engines know queues only; exchanges are kombu's.  A worker declares its queues through kombu, so that what others send to a
direct or topic exchange finds its way into them.  A fanout exchange (``kombu.common.Broadcast``) has no queue in Redis and
SQLite: it delivers to whoever listens at that moment.  So a thread listens, and puts what it hears into a queue of this worker's
own, which the slots consume like any other.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from celeriac.broker import Broker
from celeriac.compat import connect, connect_rabbitmq
from celeriac.compat.envelope import priority_of
from celeriac.errors import StoreError
from celeriac.message import Message

logger = logging.getLogger("celery.worker.consumer")

WAIT_SECONDS = 1.0
"""Longest single wait, so that stopping does not take longer."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between tries to reach a broker that is away."""


class Exchanges:
    """Declares a worker's queues, and hears its fanout exchanges, in a thread where there are any."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._pending: list[Any] = [app.amqp.queues[name] for name in app.amqp.queues.consume_from]
        scheme = connect.scheme_of(connect.broker_url(app))
        self._declares = scheme in connect.BROKERS and scheme not in connect_rabbitmq.SCHEMES
        """Whether there is anything to do: RabbitMQ's exchanges are its engine's, and those of other brokers are kombu's."""
        self._fanouts = {queue.name: queue for queue in self._pending if _is_fanout(queue)} if self._declares else {}
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0

    def start(self) -> None:
        """Declare the queues; when the broker is away, later, from the thread."""
        if not self._declares:
            return
        try:
            self._declare_pending()
        except Exception as error:
            logger.warning("The queues could not be declared yet (%s)", error)
            self._start_thread()
        if self._fanouts:
            self._start_thread()

    def add(self, queue: Any) -> None:
        """Declare one more queue, and hear it if it is a fanout."""
        self._pending.append(queue)
        self._declare_pending()
        if self._declares and _is_fanout(queue):
            self._fanouts[queue.name] = queue
            self._changed.set()
            self._start_thread()

    def cancel(self, name: str) -> None:
        """Hear a queue no more."""
        if self._fanouts.pop(name, None) is not None:
            self._changed.set()

    def stop(self) -> None:
        """Stop listening.  What was heard and not run goes with the worker, as on any fanout."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * WAIT_SECONDS)
        for name in self._fanouts:
            with suppress(StoreError):
                connect.producer(self._app).purge(name)

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="celeriac-exchanges", daemon=True)
            self._thread.start()

    def _declare_pending(self) -> None:
        with self._app.connection_for_write() as connection:
            while self._pending:
                self._pending[0](connection.default_channel).declare()
                self._pending.pop(0)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._declare_pending()
                if not self._fanouts:
                    return
                self._listen()
            except Exception as error:
                level = logging.DEBUG if self._failures else logging.WARNING
                logger.log(level, "Broadcasts are not heard (%s). Trying again", error)
                self._ended.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10)))
                self._failures += 1

    def _listen(self) -> None:
        """Serve one connection until it breaks or the queues change."""
        self._changed.clear()
        broker = connect.producer(self._app)
        queues = list(self._fanouts.values())
        with (
            self._app.connection_for_read() as connection,
            connection.Consumer(queues, no_ack=True, accept=None) as consumer,
        ):
            self._failures = 0
            consumer.on_message = lambda message: _put(broker, self._fanouts, message)
            while not (self._ended.is_set() or self._changed.is_set()):
                with suppress(socket.timeout):
                    connection.drain_events(timeout=WAIT_SECONDS)


def _is_fanout(queue: Any) -> bool:
    return queue.exchange is not None and queue.exchange.type == "fanout"


def _put(broker: Broker, fanouts: dict[str, Any], message: Any) -> None:
    """Put what an exchange said into this worker's queue of it."""
    exchange = (message.delivery_info or {}).get("exchange")
    envelope = {
        "body": base64.b64encode(_bytes(message.body)).decode(),
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": message.headers,
        "properties": {**message.properties, "body_encoding": "base64", "delivery_info": message.delivery_info},
    }
    raw, priority = json.dumps(envelope).encode(), priority_of(envelope)
    broker.publish([Message(n, raw, priority) for n, queue in fanouts.items() if queue.exchange.name == exchange])


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()
