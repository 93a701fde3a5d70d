"""Dead letters in a queue of the transport's own, and what a transport cannot be told about messages of dead processes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kombu.utils.uuid import uuid

from celeriac.broker import DeadMessage
from celeriac.compat.through_kombu.messages import raw_of
from celeriac.compat.through_kombu.traits import DEAD_QUEUE
from celeriac.message import Delivery, Message
from celeriac.outcome import DeadLetter

HEADER = "celeriac-dead"

MOST = 10_000
"""Most dead letters that are looked through."""

LONGEST_TRACEBACK = 4_000
"""Characters.  Transports bound the size of a message (SQS: 256 KiB)."""

SETTLED = b"settled"
"""Stands for a message that needs only be acknowledged."""

REMEMBERED = 86_400.0
"""Seconds for which it is remembered what to make of a message that comes again.  SQS gives one away again within 12 hours."""


def bury(send: Callable[..., None], delivery: Delivery, letter: DeadLetter) -> None:
    """Send a message to the dead letters, with why it died."""
    told = {**letter._asdict(), "queue": delivery.queue, "traceback": letter.traceback[-LONGEST_TRACEBACK:]}
    told["id"] = f"{int((letter.at or time.time()) * 1000):014d}-{uuid()[:8]}"
    send(Message(DEAD_QUEUE, delivery.raw), **{HEADER: json.dumps(told)})


@contextmanager
def opened(queue: Any) -> Iterator[list[Any]]:
    """All dead letters, as kombu's messages.  Those that are not acknowledged inside go back."""
    letters: list[Any] = []
    try:
        while len(letters) < MOST and (letter := queue.get(no_ack=False)) is not None:
            letters.append(letter)
        yield letters
    finally:
        for letter in letters:
            if not letter.acknowledged:
                letter.requeue()


def read(letter: Any) -> DeadMessage:
    """A dead letter as the broker's contract has it."""
    told = json.loads(letter.headers.get(HEADER) or "{}")
    queue = told.get("queue", "")
    raw = json.loads(raw_of(letter, queue))
    raw["headers"].pop(HEADER, None)
    return DeadMessage(
        id=told.get("id") or str(letter.delivery_tag),
        queue=queue,
        raw=json.dumps(raw).encode(),
        **{name: told.get(name, "") for name in ("reason", "error", "task", "task_id", "traceback", "worker")},
        attempts=int(told.get("attempts", 0)),
        crashes=int(told.get("crashes", 0)),
        at=float(told.get("at", 0.0)),
    )


# -- what a transport will give away again -------------------------------------------------------------------------------


def note(directory: Path, identity: str, raw: bytes) -> None:
    """Remember what to make of a message of a dead process when the transport gives it away again: the message with its crashes
    counted, or :data:`SETTLED`.
    """
    folder = directory / "again"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > REMEMBERED:
            old.unlink(missing_ok=True)
    (folder / _name(identity)).write_bytes(raw)


def recall(directory: Path, identity: str) -> bytes | None:
    """What was noted on this machine, if anything."""
    try:
        return (directory / "again" / _name(identity)).read_bytes()
    except FileNotFoundError:
        return None


def _name(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
