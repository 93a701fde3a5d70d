"""The message as a broker sees it: an envelope of bytes with an address.

What is inside the envelope (kombu's JSON, a task's name, its arguments) is the business of whoever sends and runs
tasks.  A broker never looks into it and never re-encodes it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SENT_HEADER = "celeriac-sent"
"""Header with the time of sending: seconds since the epoch, a float.  Stock Celery workers ignore it."""

CRASHES_HEADER = "celeriac-crashes"
"""Header with the number of processes that died while they ran this message.  Absent means none."""

AGAIN_HEADER = "celeriac-again"
"""Header of a message that is delivered again by being sent again, where the server would mark it only if it had kept it."""

COPY_HEADER = "celeriac-copy"
"""Header that makes a message that is sent again different from the first, where a broker knows messages by their bytes."""


DELAY_HEADERS = frozenset(
    {"x-death", *(f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason"))}
)
"""Headers that RabbitMQ gives to a message that has waited in a delay queue.  They are not sent again: by them it would take a
message that waits there a second time for one that goes in a circle, and drop it."""

ADMITTED_HEADER = "celeriac-admitted"
"""Header of a message that a rate limit has let in for the moment at which it is due."""


class Message(NamedTuple):
    """A message on its way to a queue."""

    queue: str
    """Name of the queue, as the app knows it (without any priority suffix or key prefix)."""
    raw: bytes
    """The encoded envelope."""
    priority: int = 0
    """As in Celery on the same broker.  On Redis and SQLite 0 is the highest and 9 the lowest."""
    due: float | None = None
    """When to run it: seconds since the epoch.  ``None`` or the past means at once."""
    lane: str = ""
    """Beside its queue, in the lane of this name (:meth:`celeriac.broker.Broker.unpark`).  Only for what follows an outcome, on
    brokers that have lanes."""


class Bound(NamedTuple):
    """How long a queue may become by what is published within it (:meth:`celeriac.broker.Broker.publish_within`)."""

    max_length: int
    """Messages that are ready, scheduled or parked, together."""
    drop_oldest: bool = False
    """Whether the oldest ready messages make room, and go to the dead letters, instead of the new ones being refused."""


class Delivery(NamedTuple):
    """A leased message.  It belongs to the owner that leased it until it is settled, released or rescued."""

    tag: int
    """Names this lease among all that its owner ever held.  Never used twice by one owner."""
    queue: str
    """Name of the queue it came from."""
    raw: bytes
    """The encoded envelope, byte for byte as it lay in the queue."""


LANE_SEPARATOR, AFTER_SEPARATOR = "\x1f", "\x20"
"""Between a queue's name and a lane's where lanes are hidden queues, and the character after it in order."""


def lane_queue(queue: str, lane: str) -> str:
    """The hidden queue that a lane is, on brokers that keep lanes so; the queue itself for no lane."""
    return f"{queue}{LANE_SEPARATOR}{lane}" if lane else queue


_SENT = re.compile(rb'"celeriac-sent": ?([0-9.]+)')
_NAMES = re.compile(rb'"(task|id)": ?"([^"\\]+)"')


def sent_at(raw: bytes) -> float | None:
    """When an envelope was sent, in seconds since the epoch; ``None`` where it does not tell."""
    found = _SENT.search(raw)
    return float(found[1]) if found else None


def task_of(raw: bytes) -> tuple[str, str]:
    """A task's name and id, as far as an envelope tells them; empty where it does not."""
    found = {name: value.decode("utf-8", "replace") for name, value in reversed(_NAMES.findall(raw))}
    return found.get(b"task", ""), found.get(b"id", "")
