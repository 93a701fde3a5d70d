"""Puts messages into queues and the schedule, and moves them from there to here."""

from __future__ import annotations

import heapq
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

from celeriac.brokers.sqlite import burying, looking
from celeriac.errors import QueueFull
from celeriac.message import Bound, Message, lane_queue, task_of
from celeriac.outcome import DeadLetter, DeadReason
from celeriac.sqlite_store.statements import statements

_PUBLISH = statements(__package__ or "", "publish.sql")
_OVERFLOW = statements(__package__ or "", "overflow.sql")
_LOOK = statements(__package__ or "", "look.sql")
_SETTLE = statements(__package__ or "", "settle.sql")
_SCHEDULE = statements(__package__ or "", "schedule.sql")


def normalised(priority: int, steps: Sequence[int]) -> int:
    """The step that a priority belongs to: the highest that is not above it."""
    return steps[max(0, bisect_right(steps, priority) - 1)]


def publish(connection: sqlite3.Connection, messages: Sequence[Message], steps: Sequence[int], now: float) -> bool:
    """Insert messages; return whether any of them can be leased at once.  Priorities are normalised."""
    rows = [(lane_queue(m.queue, m.lane), normalised(m.priority, steps), m.due, m.raw) for m in messages]
    later = [row for row in rows if row[2] is not None and row[2] > now]
    ready = [(queue, priority, raw) for queue, priority, due, raw in rows if due is None or due <= now]
    if later:
        connection.executemany(_PUBLISH["add_scheduled"], later)
    _enqueue(connection, ready, now)
    return bool(ready)


def publish_within(
    connection: sqlite3.Connection,
    messages: Sequence[Message],
    bounds: Mapping[str, Bound],
    steps: Sequence[int],
    now: float,
) -> bool:
    """Publish without letting queues grow past their bounds.  Raises ``QueueFull``; the caller rolls back then."""
    for queue, count in Counter(message.queue for message in messages if message.queue in bounds).items():
        bound = bounds[queue]
        ready, rest = looking.lengths(connection, queue)
        excess = ready + rest + count - bound.max_length
        if excess > 0:
            if not bound.drop_oldest or excess > ready:
                raise QueueFull(queue, bound.max_length, ready + rest, count)
            _drop_oldest(connection, queue, excess, bound, now)
    return publish(connection, messages, steps, now)


def _drop_oldest(connection: sqlite3.Connection, queue: str, count: int, bound: Bound, now: float) -> None:
    """Bury that many ready messages; there are as many."""
    error = f"QueueFull: it made room in a queue of at most {bound.max_length} messages"
    while count > 0:
        (priority,) = connection.execute(_OVERFLOW["last_priority"], (queue,)).fetchone()
        oldest = connection.execute(_OVERFLOW["oldest"], (queue, priority, count)).fetchall()
        for _, id, raw in oldest:
            task, task_id = task_of(raw)
            burying.bury(connection, id, DeadLetter(DeadReason.OVERFLOW, error, task, task_id), now)
        connection.executemany(_LOOK["drop_ready"], [(queue, priority, id) for priority, id, _ in oldest])
        connection.executemany(_SETTLE["drop_message"], [(id,) for _, id, _ in oldest])
        count -= len(oldest)


def promote(connection: sqlite3.Connection, queues: Sequence[str], limit: int, now: float) -> int:
    """Move what is due to the tails of its queues, oldest due first; return how many."""
    due = due_ids(connection, queues, limit, now)
    rows = [connection.execute(_SCHEDULE["payload"], (id,)).fetchone() for id in due]
    connection.executemany(_SCHEDULE["drop"], [(id,) for id in due])
    _enqueue(connection, rows, now)
    return len(due)


def due_ids(connection: sqlite3.Connection, queues: Sequence[str], limit: int, now: float) -> list[int]:
    """Ids in the schedule of what is due, oldest due first."""
    found = [connection.execute(_SCHEDULE["due"], (queue, now, limit)).fetchall() for queue in queues]
    return [id for _, id in heapq.nsmallest(limit, (row for rows in found for row in rows))]


def next_due(connection: sqlite3.Connection, queues: Sequence[str]) -> float | None:
    """When the first scheduled message of these queues is due."""
    rows = [connection.execute(_SCHEDULE["next_due"], (queue,)).fetchone() for queue in queues]
    return min((row[0] for row in rows if row), default=None)


def _enqueue(connection: sqlite3.Connection, rows: Sequence[tuple[str, int, bytes]], now: float) -> None:
    if not rows:
        return
    first = (connection.execute(_PUBLISH["last_id"]).fetchone()[0] or 0) + 1
    connection.executemany(
        _PUBLISH["add_message"],
        [(id, queue, priority, now, raw) for id, (queue, priority, raw) in enumerate(rows, first)],
    )
    connection.executemany(
        _PUBLISH["add_ready"], [(id, queue, priority) for id, (queue, priority, _) in enumerate(rows, first)]
    )
