"""Depths and purges."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from celeriac.broker import Depth
from celeriac.brokers.sqlite import parking
from celeriac.sqlite_store.statements import statements

_LOOK = statements(__package__ or "", "look.sql")
_DROP_MESSAGE = statements(__package__ or "", "settle.sql")["drop_message"]
_SERVING = statements(__package__ or "", "owners.sql")["serving"]
_DROP_SCHEDULED = statements(__package__ or "", "schedule.sql")["drop"]


def depths(connection: sqlite3.Connection, queues: Sequence[str], now: float) -> list[Depth]:
    """How much lies in each queue."""
    consumers = _consumers(connection, now)
    return [_depth(connection, queue, consumers[queue], now) for queue in queues]


def lengths(connection: sqlite3.Connection, queue: str) -> tuple[int, int]:
    """How many messages of a queue are ready, and how many wait elsewhere: scheduled or parked."""
    ready, scheduled = connection.execute(_LOOK["counts"], (queue,)).fetchone() or (0, 0)
    return ready, scheduled + parking.parked(connection, queue)


def leased_count(connection: sqlite3.Connection) -> int:
    """Messages leased by anybody."""
    return int(connection.execute(_LOOK["leased_count"]).fetchone()[0])


def first_scheduled(connection: sqlite3.Connection, queue: str, limit: int) -> list[tuple[float, bytes]]:
    """When it is due and envelope of what comes first in a queue's schedule."""
    return connection.execute(_LOOK["first_scheduled"], (queue, limit)).fetchall()


def purge_some(connection: sqlite3.Connection, queue: str, limit: int) -> int:
    """Delete up to ``limit`` ready and scheduled messages; return how many."""
    ready = connection.execute(_LOOK["some_ready"], (queue, limit)).fetchall()
    scheduled = connection.execute(_LOOK["some_scheduled"], (queue, limit - len(ready))).fetchall()
    connection.executemany(_LOOK["drop_ready"], [(queue, priority, id) for priority, id in ready])
    connection.executemany(_DROP_MESSAGE, [(id,) for _, id in ready])
    connection.executemany(_DROP_SCHEDULED, scheduled)
    return len(ready) + len(scheduled)


def _depth(connection: sqlite3.Connection, queue: str, consumers: int, now: float) -> Depth:
    ready, scheduled = connection.execute(_LOOK["counts"], (queue,)).fetchone() or (0, 0)
    head = connection.execute(_LOOK["next_queued_at"], (queue,)).fetchone()
    age = max(0.0, now - head[0]) if head else None
    return Depth(queue, ready, scheduled, consumers, age, parking.parked(connection, queue))


def _consumers(connection: sqlite3.Connection, now: float) -> Counter[str]:
    rows = connection.execute(_SERVING, (now,))
    return Counter(queue for (queues,) in rows for queue in set(json.loads(queues)))
