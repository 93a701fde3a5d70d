"""A stencil (see :mod:`celeriac.compat.stencil`) of a message as AMQP has it."""

from __future__ import annotations

import struct
import time
from typing import Any

from celeriac.brokers.rabbitmq import properties as amqp
from celeriac.brokers.rabbitmq import wire
from celeriac.compat.envelope import encode_json
from celeriac.message import SENT_HEADER, Message

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
"""What a plain call embeds in the body beside its arguments."""

_LENGTH = struct.Struct(">I")
_MOMENT = struct.Struct(">cd")


class ParcelStencil:
    """A task's message with holes: its id among headers and properties, the representations of its arguments, the time of sending."""

    __slots__ = ("_head", "_start", "_table", "_tail", "priority", "queue")

    def __init__(self, message: Message, marks: dict[str, str]) -> None:
        """``message`` was sent with these marks in it, by the names ``id``, ``args`` and ``kwargs``.

        Raises:
            ValueError: one of them is not where it should be.
        """
        self.queue = message.queue
        self.priority = message.priority
        parcel = wire.unpack(message.raw)
        found = amqp.decode(parcel.properties)
        headers = found.pop("headers")
        sent = amqp.short(SENT_HEADER) + _MOMENT.pack(b"d", headers.get(SENT_HEADER, 0.0))
        holes = [(amqp.long_text(text), b"%%(%b)b" % name.encode()) for name, text in marks.items()]
        holes.append((sent, amqp.short(SENT_HEADER) + b"%(sent)b"))
        self._table = _cut(amqp.table(headers)[4:], holes)
        before, _, after = amqp.encode({**found, "headers": {}}).partition(b"\0\0\0\0")
        self._head = before
        self._tail = _cut(after, [(amqp.short(marks["id"]), b"%(short)b")])
        self._start = wire.pack(parcel.exchange.encode(), parcel.routing_key.encode(), b"", b"")[:-4]

    def fill(self, task_id: str, _tag: str, args: Any, kwargs: Any, argsrepr: str, kwargsrepr: str) -> Message:
        """A message.  ``argsrepr`` and ``kwargsrepr`` are representations for people.

        Raises:
            TypeError, ValueError, RecursionError: the arguments are not JSON.
        """
        body = encode_json((args, kwargs, EMBED)).encode()
        fields = {
            b"id": amqp.long_text(task_id), b"args": amqp.long_text(argsrepr), b"kwargs": amqp.long_text(kwargsrepr),
            b"sent": _MOMENT.pack(b"d", time.time()),
        }  # fmt: skip
        table = self._table % fields
        tail = self._tail % {b"short": amqp.short(task_id)}
        length = len(self._head) + 4 + len(table) + len(tail)
        parts = (self._start, _LENGTH.pack(length), self._head, _LENGTH.pack(len(table)), table, tail, body)
        return Message(self.queue, b"".join(parts), self.priority)


def _cut(data: bytes, holes: list[tuple[bytes, bytes]]) -> bytes:
    """Bytes as a format with holes.

    Raises:
        ValueError: there is nothing for one of them.
    """
    form = data.replace(b"%", b"%%")
    for what, hole in holes:
        marked = what.replace(b"%", b"%%")
        if marked not in form:
            raise ValueError(f"a message without {what!r}")
        form = form.replace(marked, hole)
    return form
