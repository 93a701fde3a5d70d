"""Sending the same task again and again: all of a message but its few variable parts is worked out once.

A stencil is made by sending the task once the long way, into a collector, with marks in place of what varies; what comes out is
cut at the marks.  So the long way alone decides what a message looks like.
"""

from __future__ import annotations

import json
import os
import re
import time
from binascii import b2a_base64
from typing import Any

from celeriac.compat.collect import Collector, collecting
from celeriac.compat.envelope import encode_json
from celeriac.compat.parcel import is_parcel
from celeriac.compat.parcel_stencil import EMBED, ParcelStencil
from celeriac.message import SENT_HEADER, Message

MARKS = {"id": "@@celeriac-id@@", "args": "@@celeriac-args@@", "kwargs": "@@celeriac-kwargs@@"}
encode_text = json.encoder.encode_basestring_ascii


class Ids:
    """Random version 4 UUIDs as text, from the kernel's randomness fetched for many at a time."""

    _BATCH = 256

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._hex, self._at = "", 0

    def next(self) -> str:
        """One id."""
        at = self._at
        if at >= len(self._hex):
            self._hex = os.urandom(16 * self._BATCH).hex()
            at = 0
        self._at = at + 32
        digits = self._hex[at : at + 32]
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Stencil:
    """A task's message with holes."""

    __slots__ = ("_format", "priority", "queue")

    def __init__(self, message: Message) -> None:
        """``message`` was sent with :data:`MARKS` in it."""
        self.queue = message.queue
        self.priority = message.priority
        self._format = _format_of(message.raw.decode())

    def fill(self, task_id: str, tag: str, args: Any, kwargs: Any, argsrepr: str, kwargsrepr: str) -> Message:
        """A message.  ``argsrepr`` and ``kwargsrepr`` are representations for people.

        Raises:
            TypeError, ValueError, RecursionError: the arguments are not JSON.
        """
        body = b2a_base64(encode_json((args, kwargs, EMBED)).encode(), newline=False).decode()
        texts = encode_text(argsrepr), encode_text(kwargsrepr)
        raw = self._format % {
            "body": body, "id": task_id, "args": texts[0], "kwargs": texts[1], "sent": time.time(), "tag": tag,
        }  # fmt: skip
        return Message(self.queue, raw.encode(), self.priority)


def _format_of(raw: str) -> str:
    """The message as a format string with the holes' names."""
    for pattern, hole in _HOLES:
        raw, count = re.subn(pattern, hole, raw.replace("%", "%%") if pattern is _HOLES[0][0] else raw)
        if not count:
            raise ValueError(f"a message without {hole}")
    return raw


_HOLES = (
    (r'(?<="body": ")[^"]*', "%(body)s"),
    (MARKS["id"], "%(id)s"),
    (f'"{MARKS["args"]}"', "%(args)s"),
    (f'"{MARKS["kwargs"]}"', "%(kwargs)s"),
    (rf'(?<="{SENT_HEADER}": )[0-9.e+-]+', "%(sent)r"),
    (r'(?<="delivery_tag": ")[^"]*', "%(tag)s"),
)


def cut(app: Any, task: Any) -> Stencil | ParcelStencil | None:
    """A task's stencil; ``None`` when its messages vary in more than the usual ways."""
    with collecting(Collector(only=True)) as collector:
        app.send_task(
            task.name, (), {}, task_id=MARKS["id"], task_type=task, argsrepr=MARKS["args"], kwargsrepr=MARKS["kwargs"],
            add_to_parent=False, **task.sending_options(),
        )  # fmt: skip
    if len(collector.publish) != 1 or collector.publish[0].due is not None:
        return None
    try:
        message = collector.publish[0]
        return ParcelStencil(message, MARKS) if is_parcel(message.raw) else Stencil(message)
    except ValueError:
        return None
