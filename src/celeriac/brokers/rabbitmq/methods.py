"""AMQP methods as pamqp encodes them, without its idea of which names are valid: RabbitMQ takes any of up to 255 bytes."""

from __future__ import annotations

import struct
from typing import Any

from pamqp import commands, frame
from pamqp.base import Frame


class _QueueDeclare(commands.Queue.Declare):
    def validate(self) -> None:
        """The server does that."""


class _QueueBind(commands.Queue.Bind):
    def validate(self) -> None:
        """The server does that."""


class _QueueUnbind(commands.Queue.Unbind):
    def validate(self) -> None:
        """The server does that."""


class _QueueDelete(commands.Queue.Delete):
    def validate(self) -> None:
        """The server does that."""


class _QueuePurge(commands.Queue.Purge):
    def validate(self) -> None:
        """The server does that."""


class _BasicConsume(commands.Basic.Consume):
    def validate(self) -> None:
        """The server does that."""


class _ExchangeDeclare(commands.Exchange.Declare):
    def validate(self) -> None:
        """The server does that."""


class _ExchangeBind(commands.Exchange.Bind):
    def validate(self) -> None:
        """The server does that."""


def declare_queue(
    name: str, arguments: dict[str, Any] | None = None, *, passive: bool = False, durable: bool = True,
    auto_delete: bool = False,
) -> Frame:  # fmt: skip
    """``queue.declare``."""
    return _QueueDeclare(0, name, passive, durable, auto_delete=auto_delete, nowait=False, arguments=arguments or {})


def declare_lock(name: str) -> Frame:
    """``queue.declare`` of a queue that one connection has for itself, and that goes with it."""
    return _QueueDeclare(0, name, passive=False, durable=False, exclusive=True, nowait=False, arguments={})


def bind_queue(name: str, exchange: str, routing_key: str, arguments: dict[str, Any] | None = None) -> Frame:
    """``queue.bind``."""
    return _QueueBind(0, name, exchange, routing_key, nowait=False, arguments=arguments or {})


def unbind_queue(name: str, exchange: str, routing_key: str) -> Frame:
    """``queue.unbind``."""
    return _QueueUnbind(0, name, exchange, routing_key, {})


def delete_queue(name: str, *, if_unused: bool = False) -> Frame:
    """``queue.delete``."""
    return _QueueDelete(queue=name, if_unused=if_unused)


def purge_queue(name: str) -> Frame:
    """``queue.purge``."""
    return _QueuePurge(queue=name)


def declare_exchange(
    name: str, kind: str, arguments: dict[str, Any] | None = None, *, durable: bool = True, auto_delete: bool = False
) -> Frame:
    """``exchange.declare``."""
    return _ExchangeDeclare(
        exchange=name, exchange_type=kind, durable=durable, auto_delete=auto_delete, arguments=arguments or {}
    )


def bind_exchange(destination: str, source: str, routing_key: str) -> Frame:
    """``exchange.bind``."""
    return _ExchangeBind(destination=destination, source=source, routing_key=routing_key)


def consume(queue: str, tag: str) -> Frame:
    """``basic.consume``; what comes has to be acknowledged."""
    return _BasicConsume(0, queue, tag)


def cancel(tag: str, *, wait: bool = True) -> Frame:
    """``basic.cancel``."""
    return commands.Basic.Cancel(tag, nowait=not wait)


def prefetch(count: int) -> Frame:
    """``basic.qos`` for the consumers that follow: most of their messages that may be unacknowledged, for each.  Not for the
    channel as a whole: the server asks a process of its own for each message then, and quorum queues do not take it at all.
    """
    return commands.Basic.Qos(0, count, global_=False)


_ANSWERS: dict[type[Frame], tuple[type[Frame], ...]] = {}


def answers_to(method: Frame) -> tuple[type[Frame], ...]:
    """Kinds of methods that answer one."""
    kind = type(method)
    if kind not in _ANSWERS:
        names = set(method.valid_responses)
        known: dict[int, Any] = commands.INDEX_MAPPING
        _ANSWERS[kind] = tuple(answer for answer in known.values() if answer.name in names)
    return _ANSWERS[kind]


def decode_method(channel: int, payload: bytes) -> Any:
    """A method from its payload."""
    data = struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"
    return frame.unmarshal(data)[2]
