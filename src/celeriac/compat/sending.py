"""The send path: from ``apply_async`` to the broker in one round trip."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, NamedTuple

from celery import signals
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu import Exchange
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from celeriac.compat import connect, context, envelope
from celeriac.compat.collect import current_collector
from celeriac.compat.snapshot import Snapshot, snapshot
from celeriac.errors import StoreFull, StoreUnavailable
from celeriac.message import SENT_HEADER, Message
from celeriac.telemetry.bus import bus
from celeriac.telemetry.events import TaskSent


class PublishFailed(StoreUnavailable, OperationalError):
    """The broker could not be reached within the publish policy; nothing is known to have been sent.

    Celery's users know it as :exc:`kombu.exceptions.OperationalError`.
    """


class PublishRefused(StoreFull, OperationalError):
    """The broker has no room for the message; nothing was sent."""


class Address(NamedTuple):
    """Where a message goes."""

    queue: str | None
    """Name of the one queue that it goes to; ``None`` when an exchange decides."""
    exchange: str
    routing_key: str
    exchange_type: str


class Posted(NamedTuple):
    """A message with what is announced once it is sent."""

    message: Message
    name: str
    headers: dict[str, Any]
    announce: Callable[[], None] | None


class Batch:
    """Messages that are sent together."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []


_batch: ContextVar[Batch | None] = ContextVar("celeriac_batch", default=None)


@contextmanager
def batch(app: Any) -> Iterator[Batch]:
    """Send all that is sent inside the block in one round trip, when the block ends.

    If the block raises, nothing is sent.  Blocks inside a block belong to the outer one.

    Raises:
        PublishFailed, PublishRefused: on leaving the block; nothing is known to have been sent.
    """
    outer = _batch.get()
    if outer is not None:
        yield outer
        return
    collected = Batch()
    token = _batch.set(collected)
    try:
        yield collected
    finally:
        _batch.reset(token)
    if collected.posted:
        settings = snapshot(app)
        post(app, collected.posted, settings.retry_policy if settings.retry else None)


def resolve(
    app: Any, queue: Any, exchange: Any, routing_key: str | None, exchange_type: str | None
) -> tuple[Address, Any]:
    """Where Celery would send this, and the queue's declaration if there is one."""
    amqp = app.amqp
    if queue is None and exchange is None:
        queue = amqp.default_queue
    if isinstance(queue, str):
        queue = amqp.queues[queue]
    name = queue.name if queue is not None else None
    if isinstance(exchange, Exchange):
        exchange_type = exchange_type or exchange.type
        exchange = exchange.name
    if exchange_type is None:
        declared = getattr(queue, "exchange", None)
        exchange_type = declared.type if declared is not None else "direct"
    if (not exchange or not routing_key) and exchange_type == "direct":
        return Address(name, "", name or "", exchange_type), queue
    if exchange is None:
        exchange = queue.exchange.name or amqp.default_exchange.name
        routing_key = routing_key or queue.routing_key or app.conf.task_default_routing_key
    return Address(None, exchange, routing_key or "", exchange_type), queue


def send(app: Any, name: str, message: Any, options: dict[str, Any]) -> None:
    """Send one of Celery's task messages (what ``amqp.create_task_message`` returns)."""
    headers, properties, body, sent_event = message
    queue, exchange = options.pop("queue", None), options.pop("exchange", None)
    address, queue = resolve(app, queue, exchange, options.pop("routing_key", None), options.pop("exchange_type", None))
    headers.update(options.pop("headers", None) or {})
    headers[SENT_HEADER] = time.time()
    settings = snapshot(app)
    if address.queue is None or isinstance(queue, Broadcast) or not settings.has_engine:
        _send_by_kombu(app, name, message, {**options, "queue": queue, **_exchange_options(address)})
        return
    retry = options.pop("retry", None)
    policy = {**settings.retry_policy, **(options.pop("retry_policy", None) or {})}
    serializer = options.pop("serializer", None) or settings.serializer
    compression = options.pop("compression", None) or settings.compression
    _fill_properties(settings, properties, queue, options)
    if signals.before_task_publish.receivers:
        signals.before_task_publish.send(
            sender=name, body=body, exchange="", routing_key=address.queue, declare=[queue], headers=headers,
            properties=properties, retry_policy=policy,
        )  # fmt: skip
    raw = envelope.encode(
        body, serializer=serializer, compression=compression, headers=headers, properties=properties,
        exchange="", routing_key=address.queue,
    )  # fmt: skip
    due = due_at(app, headers.get("eta"))
    posted = Posted(
        Message(address.queue, raw, properties["priority"], due),
        name,
        headers,
        _announcement(app, name, body, headers, address, sent_event),
    )
    retry = settings.retry if retry is None else retry
    _deliver(app, posted, policy if retry else None)


def _deliver(app: Any, posted: Posted, policy: dict[str, Any] | None) -> None:
    collector, collected = current_collector(), _batch.get()
    if collector is None and held_back(posted):
        return
    if collector is not None:
        collector.publish.append(posted.message)
        if posted.announce is not None:
            posted.announce()
    elif collected is not None:
        collected.posted.append(posted)
    else:
        post(app, [posted], policy)


def deliver_plainly(app: Any, message: Message, settings: Snapshot) -> None:
    """Send a message that nobody needs to be told of."""
    posted = Posted(message, "", {}, None)
    collector, collected = current_collector(), _batch.get()
    if collector is not None:
        collector.publish.append(message)
    elif collected is not None:
        collected.posted.append(posted)
    else:
        post(app, (posted,), settings.retry_policy if settings.retry else None)


def held_back(posted: Posted) -> bool:
    """Keep a message that continues the running task itself (its retry, or what replaces it) for that task's outcome."""
    task = context.task_stack.top
    request = task.request_stack.top if task is not None else None
    if request is None or request.id != posted.headers.get("id") or request.is_eager or request.called_directly:
        return False
    request.__dict__.setdefault("held", []).append(posted.message)
    if posted.announce is not None:
        posted.announce()
    return True


def post(app: Any, posted: Sequence[Posted], policy: dict[str, Any] | None) -> None:
    """Put messages into the broker, trying again as ``policy`` says (Celery's ``retry_policy``; ``None``: once)."""
    broker = connect.producer(app)
    messages = [each.message for each in posted]
    started, tries = time.monotonic(), 0
    while True:
        try:
            broker.publish(messages)
            break
        except StoreFull as error:
            raise PublishRefused(f"{len(messages)} messages were not sent: {error}") from error
        except StoreUnavailable as error:
            pause = _pause(policy, tries)
            tries += 1
            if pause is None:
                took = time.monotonic() - started
                raise PublishFailed(f"Gave up sending after {tries} attempts in {took:.1f} s: {error}") from error
            time.sleep(pause)
    for each in posted:
        if each.announce is not None:
            each.announce()


def _pause(policy: dict[str, Any] | None, tries: int) -> float | None:
    """Seconds to wait before the next try; ``None``: give up.  The formula of kombu's ``retry_over_time``."""
    if policy is None:
        return None
    most = policy.get("max_retries", 3)
    if most is not None and tries >= most:
        return None
    start, step, longest = (policy.get(f"interval_{name}", value) for name, value in
                            (("start", 0), ("step", 0.2), ("max", 0.2)))  # fmt: skip
    return float(min(start + step * tries, longest))


def _fill_properties(settings: Snapshot, properties: dict[str, Any], queue: Any, options: dict[str, Any]) -> None:
    mode = options.pop("delivery_mode", None)
    if mode is None:
        mode = getattr(getattr(queue, "exchange", None), "delivery_mode", None) or settings.delivery_mode
    for name in (
        "argsrepr",
        "kwargsrepr",
        "declare",
        "timeout",
        "confirm_timeout",
        "mandatory",
        "immediate",
        "event_dispatcher",
    ):
        options.pop(name, None)
    properties.update(options)
    expiration = properties.get("expiration")
    if expiration is not None:
        properties["expiration"] = str(int(float(expiration) * 1000))
    properties["delivery_mode"] = 2 if mode in (2, "persistent", None) else 1
    priority = properties.get("priority")
    properties["priority"] = max(0, min(int(priority), 9)) if priority else 0


def _announcement(
    app: Any, name: str, body: Any, headers: dict[str, Any], address: Address, sent_event: dict[str, Any] | None
) -> Callable[[], None] | None:
    """What is to be called once the message is sent; ``None`` when nobody listens."""
    if not (signals.after_task_publish.receivers or sent_event or bus.listening or signals.task_sent.receivers):
        return None

    def announce() -> None:
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=name, body=body, headers=headers, exchange="", routing_key=address.queue
            )
        if signals.task_sent.receivers:  # deprecated by Celery, and sent all the same
            _send_task_sent(name, body, headers)
        if sent_event:
            _send_event(app, sent_event, address)
        if bus.listening:
            bus.emit(TaskSent(name, address.queue or "", headers.get("id") or "", due_at(app, headers.get("eta"))))

    return announce


def _send_task_sent(name: str, body: Any, headers: dict[str, Any]) -> None:
    args, kwargs = (body.get("args"), body.get("kwargs")) if isinstance(body, dict) else body[:2]
    about = {"task_id": headers.get("id"), "task": name, "eta": headers.get("eta"), "taskset": headers.get("group")}
    signals.task_sent.send(sender=name, args=args, kwargs=kwargs, **about)


def _send_event(app: Any, sent_event: dict[str, Any], address: Address) -> None:
    sent_event.update(queue=address.queue, exchange="", routing_key=address.routing_key)
    with app.kombu_producer() as producer:
        app.amqp._event_dispatcher.publish("task-sent", sent_event, producer)


def _exchange_options(address: Address) -> dict[str, Any]:
    if address.queue is not None:
        return {}
    return {"exchange": address.exchange, "routing_key": address.routing_key, "exchange_type": address.exchange_type}


def _send_by_kombu(app: Any, name: str, message: Any, options: dict[str, Any]) -> None:
    collector = current_collector()
    if collector is not None and collector.only:
        return
    with app.kombu_producer() as producer:
        app.amqp.send_task_message(producer, name, message, **options)


def due_at(app: Any, eta: Any) -> float | None:
    """When a message is due: seconds since the epoch; ``None`` without an ETA.

    Raises:
        ValueError: the ETA is not a date.
    """
    if eta is None:
        return None
    moment = maybe_iso8601(eta)
    if not isinstance(moment, datetime):
        raise ValueError(f"not a date: {eta!r}")
    if moment.tzinfo is None:
        moment = maybe_make_aware(moment, timezone.utc if app.conf.enable_utc else app.timezone)
    return float(moment.timestamp())
