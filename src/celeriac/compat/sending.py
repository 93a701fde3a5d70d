"""The send path: from ``apply_async`` to the broker in one round trip."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from operator import attrgetter
from typing import Any, NamedTuple

from celery import signals
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu import Exchange
from kombu.common import Broadcast

from celeriac.compat import connect, context, envelope, publish_buffer, uniqueness
from celeriac.compat.back_pressure import Terms, terms_of_call
from celeriac.compat.collect import current_collector
from celeriac.compat.posting import put
from celeriac.compat.publish_buffer import Posted
from celeriac.compat.snapshot import Snapshot, snapshot
from celeriac.compat.uniqueness import Ticket
from celeriac.errors import NotUnique
from celeriac.message import SENT_HEADER, Message
from celeriac.telemetry.bus import bus
from celeriac.telemetry.events import TaskSent


class Address(NamedTuple):
    """Where a message goes."""

    queue: str | None
    """Name of the one queue that it goes to; ``None`` when an exchange decides."""
    exchange: str
    routing_key: str
    exchange_type: str


GROUP_SECONDS = 0.5
"""How long the members of a group wait for the next one.  Longer, and those of a generator that is slow start late; shorter, and a
group takes more round trips."""


class Batch:
    """Messages that are sent together."""

    def __init__(self, send: Callable[[Sequence[Posted]], uniqueness.Aliases], patience: float | None) -> None:
        """``patience``: seconds that messages may wait for the next one; ``None``: all go together."""
        self.posted: list[Posted] = []
        self.aliases: uniqueness.Aliases = {}
        self._send = send
        self._patience = patience
        self._since = time.monotonic()

    def add(self, posted: Posted) -> None:
        """One more message."""
        self.posted.append(posted)
        if self._patience is not None and time.monotonic() - self._since > self._patience:
            self.flush()

    def flush(self) -> None:
        """Send what has come together."""
        posted, self.posted = self.posted, []
        if posted:
            self.aliases.update(self._send(posted))
        self._since = time.monotonic()


_batch: ContextVar[Batch | None] = ContextVar("celeriac_batch", default=None)


@contextmanager
def batch(app: Any, patience: float | None = None, **options: Any) -> Iterator[Batch]:
    """Send all that is sent inside the block in one round trip, when the block ends.

    If the block raises, nothing is sent.  Blocks inside a block belong to the outer one.

    Args:
        app: whose messages.
        patience: seconds; messages that have waited longer for the next one are sent before the block ends.
        options: ``queue_full``, ``queue_full_timeout`` and ``publish_timeout`` for all of them; those of calls in the block do
            not count.

    Raises:
        PublishFailed, PublishRefused, QueueIsFull: on leaving the block; nothing is known to have been sent.
        NotUnique: on leaving the block, for the first of the unique tasks that ask for it; everything else was sent.
    """
    outer = _batch.get()
    if outer is not None:
        yield outer
        return
    terms = terms_of_call(snapshot(app).terms, options)
    collected = Batch(lambda posted: post(app, posted, terms), patience)
    token, handles = _batch.set(collected), uniqueness.open_handles()
    try:
        yield collected
    finally:
        _batch.reset(token)
        members = uniqueness.close_handles(handles)
    collected.flush()
    uniqueness.follow(members, collected.aliases)
    uniqueness.remember(collected.aliases)


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


def send(app: Any, name: str, message: Any, options: dict[str, Any], ticket: Ticket | None = None) -> None:
    """Send one of Celery's task messages (what ``amqp.create_task_message`` returns); ``ticket`` is a unique task's."""
    headers, properties, body, sent_event = message
    queue, exchange = options.pop("queue", None), options.pop("exchange", None)
    address, queue = resolve(app, queue, exchange, options.pop("routing_key", None), options.pop("exchange_type", None))
    headers.update(options.pop("headers", None) or {})
    headers[SENT_HEADER] = time.time()
    settings = snapshot(app)
    terms = terms_of_call(settings.terms, options)
    by_exchange = address.queue is None and settings.amqp and address.exchange_type != "fanout"
    if not (address.queue or by_exchange) or isinstance(queue, Broadcast) or not settings.has_engine:
        if ticket is not None:
            uniqueness.claim_late(headers)
        _send_by_kombu(app, name, message, {**options, "queue": queue, **_exchange_options(address)})
        return
    retry = options.pop("retry", None)
    policy = {**settings.retry_policy, **(options.pop("retry_policy", None) or {})}
    terms = terms._replace(policy=policy if (settings.retry if retry is None else retry) else None)
    serializer = options.pop("serializer", None) or settings.serializer
    compression = options.pop("compression", None) or settings.compression
    _fill_properties(settings, properties, queue, options)
    if signals.before_task_publish.receivers:
        signals.before_task_publish.send(
            sender=name, body=body, exchange=address.exchange, routing_key=address.routing_key, declare=[queue],
            headers=headers, properties=properties, retry_policy=policy,
        )  # fmt: skip
    if by_exchange and queue is not None:
        connect.producer(app).prepare([queue.name])
    encode = envelope.encode_parcel if settings.amqp else envelope.encode
    raw = encode(
        body, serializer=serializer, compression=compression, headers=headers, properties=properties,
        exchange=address.exchange, routing_key=address.routing_key,
    )  # fmt: skip
    due = due_at(app, headers.get("eta"))
    posted = Posted(
        Message(address.queue or "", raw, properties["priority"], due),
        name,
        headers,
        _announcement(app, name, body, headers, address, sent_event),
        ticket,
    )
    _deliver(app, posted, terms)


def _deliver(app: Any, posted: Posted, terms: Terms) -> None:
    collector, collected = current_collector(), _batch.get()
    if collector is None and held_back(posted):
        return
    if collector is not None:
        collector.publish.append(posted.message)
        if posted.announce is not None:
            posted.announce()
    elif collected is not None:
        collected.add(posted)
    else:
        post(app, [posted], terms)


def deliver_plainly(app: Any, message: Message, settings: Snapshot) -> None:
    """Send a message that nobody needs to be told of."""
    posted = Posted(message, "", {}, None)
    collector, collected = current_collector(), _batch.get()
    if collector is not None:
        collector.publish.append(message)
    elif collected is not None:
        collected.add(posted)
    else:
        post(app, (posted,), settings.terms)


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


def post(app: Any, posted: Sequence[Posted], terms: Terms) -> uniqueness.Aliases:
    """Put messages into the broker, and tell who is to be told.  Raises as :func:`celeriac.compat.posting.put` does.

    Returns the ids of unique tasks that were not sent, each with that of the one that is on its way.
    """
    claims = [each.ticket.claim if each.ticket else None for each in posted] if any(map(_ticket, posted)) else None
    if terms.buffered and claims is None:
        publish_buffer.of(app).send(posted, terms)
        return {}
    found = put(app, [each.message for each in posted], terms, claims)
    aliases, refused = _answered(posted, found)
    publish_buffer.announce(each for each in posted if each.headers.get("id") not in aliases)
    if refused is not None:
        raise refused
    return aliases


_ticket = attrgetter("ticket")


def _answered(
    posted: Sequence[Posted], found: Sequence[bytes | None] | None
) -> tuple[uniqueness.Aliases, NotUnique | None]:
    """What the broker's answers mean: ids that others stand for, and the first error."""
    aliases: uniqueness.Aliases = {}
    first: NotUnique | None = None
    for each, value in zip(posted, found or (), strict=False):
        if each.ticket is None:
            continue
        wanted = each.ticket.task_id
        error = each.ticket.sent(value)
        if each.ticket.task_id != wanted:
            aliases[wanted] = each.ticket.task_id
        first = first or error
    return aliases, first


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
    if settings.amqp:  # RabbitMQ would drop what has expired, and nobody would hear of it; the header tells the worker
        properties.pop("expiration", None)
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
                sender=name, body=body, headers=headers, exchange=address.exchange, routing_key=address.routing_key
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
    sent_event.update(queue=address.queue, exchange=address.exchange, routing_key=address.routing_key)
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
