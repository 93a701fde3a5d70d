"""Celery's message as AMQP carries it: properties and a body, without kombu's envelope around them.

What comes out has the shape of a decoded envelope (see :mod:`celeriac.compat.envelope`), so that everything else is the same on
all brokers.
"""

from __future__ import annotations

from typing import Any

from celeriac.brokers.rabbitmq import properties as amqp
from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.delays import delayed_queue
from celeriac.message import AGAIN_HEADER, CRASHES_HEADER

Envelope = dict[str, Any]

_CARRIED = frozenset(name for name, _, _ in amqp.NAMES) - {"headers", "content_type", "content_encoding"}


def is_parcel(raw: bytes) -> bool:
    """Whether a message came by AMQP."""
    return raw[:1] == b"\xa1"


def encode(
    payload: bytes,
    content_type: str,
    content_encoding: str,
    headers: dict[str, Any],
    properties: dict[str, Any],
    exchange: str,
    routing_key: str,
) -> bytes:
    """A message.

    Raises:
        TypeError, ValueError: a header or a property that AMQP cannot carry.
    """
    carried = {name: value for name, value in properties.items() if name in _CARRIED}
    carried.update(content_type=content_type, content_encoding=content_encoding, headers=headers)
    return wire.pack(exchange.encode(), routing_key.encode(), amqp.encode(carried), payload)


def decode(raw: bytes) -> Envelope:
    """Take a message apart.

    Raises:
        ValueError: it is none.
    """
    parcel = wire.unpack(raw)
    properties = amqp.decode(parcel.properties)
    headers = properties.pop("headers", None)
    again = bool(headers) and (AGAIN_HEADER in headers or CRASHES_HEADER in headers)
    queue = delayed_queue(parcel.exchange, parcel.routing_key)
    # Tasks send to the queue that they came from by what this says.
    exchange, routing_key = (parcel.exchange, parcel.routing_key) if queue is None else ("", queue)
    properties["delivery_info"] = {
        "exchange": exchange,
        "routing_key": routing_key,
        "redelivered": parcel.redelivered or again,
    }
    return {
        "body": parcel.body,
        "content-encoding": properties.pop("content_encoding", None),
        "content-type": properties.pop("content_type", None),
        "headers": headers,
        "properties": properties,
    }


def amend(raw: bytes, headers: dict[str, Any]) -> bytes:
    """The same message with more headers.  Without any it stays as it is: the server marks by itself what it delivers again."""
    if not headers:
        return raw
    parcel = wire.unpack(raw)
    properties = amqp.decode(parcel.properties)
    properties["headers"] = {**properties.get("headers", {}), **headers}
    return wire.pack(parcel.exchange.encode(), parcel.routing_key.encode(), amqp.encode(properties), parcel.body)


def readable(raw: bytes) -> Envelope:
    """A message for people: its body as text.

    Raises:
        ValueError: it is none.
    """
    envelope = decode(raw)
    return {**envelope, "body": envelope["body"].decode("utf-8", "backslashreplace")}
