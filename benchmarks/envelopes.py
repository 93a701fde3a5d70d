"""Many messages from one: copies of an envelope of Celery's protocol, each with ids of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator


def copies(envelope: bytes, count: int, batch: int) -> Iterator[list[bytes]]:
    """``count`` copies in lists of at most ``batch``.

    The task's id stands in several places and, like the delivery tag, must differ from message to message.
    """
    pieces = _pieces(envelope)
    run = os.urandom(4).hex()
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        yield [f"{run}-0000-4000-8000-{number:012x}".encode().join(pieces) for number in numbers]


def _pieces(envelope: bytes) -> list[bytes]:
    """The envelope, cut where the id goes.  Task id and delivery tag become the same, which nobody minds."""
    decoded = json.loads(envelope)
    task_id = decoded["headers"]["id"].encode()
    tag = decoded["properties"].get("delivery_tag")
    if tag:
        envelope = envelope.replace(str(tag).encode(), task_id)
    return envelope.split(task_id)
