"""What the server pushes, cut out of the stream of bytes many at a time: no frame of it becomes an object of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from celeriac.brokers.rabbitmq.wire import (
    END,
    FROM_DELAY,
    HEADER,
    METHOD,
    NOT_AMQP,
    Gotten,
    parcel,
)
from celeriac.errors import ConfigurationError

Pushed = tuple[bytes, Gotten]
"""The tag of the consumer that it came by, and the message."""


class Listener(Protocol):
    """Gets what the server sends unasked.  Called with the connection's lock held, from any thread."""

    def queue_of(self, consumer: bytes) -> str:
        """The queue of a consumer, by its tag."""

    def pushed(self, messages: list[Pushed]) -> None:
        """Messages have come."""

    def cancelled(self, consumer: bytes) -> None:
        """The server has ended a consumer: its queue is gone."""

    def lost(self) -> None:
        """The channel is gone, and with it consumers and messages."""


_DELIVER = b"\x00<\x00<"
"""How the payload of ``basic.deliver`` begins."""

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">BHI4xQ")
_TAG = struct.Struct(">QB")


def cut(buffer: bytes, at: int, queue_of: Callable[[bytes], str]) -> tuple[list[Pushed], int]:
    """Deliveries that lie whole in a buffer, up to the first thing that is none; and where that begins.

    A message whose body takes several frames, or is not there yet, is left to who reads frame by frame.

    Args:
        buffer: bytes of the connection.
        at: where a frame begins in them.
        queue_of: from a consumer's tag to its queue.

    Raises:
        ConfigurationError: the bytes are no AMQP.
    """
    found: list[Pushed] = []
    length = len(buffer)
    while buffer.startswith(_DELIVER, at + 7) and buffer[at] == METHOD:
        head = at + 8 + _FRAME.unpack_from(buffer, at)[2]
        if length < head + 20:
            break
        kind, _, size, body_size = _CONTENT.unpack_from(buffer, head)
        content = head + 8 + size
        end = content + 8 + body_size if body_size else content
        if length < end or kind != HEADER:
            break
        body = b""
        if body_size:
            if _FRAME.unpack_from(buffer, content)[2] != body_size:
                break
            body = buffer[content + 7 : end - 1]
        if buffer[end - 1] != END:
            raise ConfigurationError(NOT_AMQP)
        found.append(assemble(buffer[at + 7 : head - 1], buffer[head + 19 : content - 1], body, queue_of))
        at = end
    return found, at


def assemble(payload: bytes, properties: bytes, body: bytes, queue_of: Callable[[bytes], str]) -> Pushed:
    """A delivery from its method, its properties and its body."""
    route_at = 14 + payload[4]
    consumer = payload[5 : route_at - 9]
    tag, again = _TAG.unpack_from(payload, route_at - 9)
    route = payload[route_at:]
    queue = queue_of(consumer).encode() if route.startswith(FROM_DELAY) else b""
    return consumer, Gotten(tag, bool(again), 0, parcel(again, route, queue, properties, body))
