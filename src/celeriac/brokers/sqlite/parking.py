"""Lanes: messages that wait beside their queue.

A lane is a hidden queue.  Its name is the queue's, a separator, and its own, so that a range of names has all lanes of a queue.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence

from celeriac.broker import Lane
from celeriac.brokers.sqlite import leasing
from celeriac.message import AFTER_SEPARATOR, LANE_SEPARATOR, Delivery, lane_queue
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "lane.sql")


def parked(connection: sqlite3.Connection, queue: str) -> int:
    """How many messages wait beside a queue."""
    return int(connection.execute(_SQL["parked"], (queue + LANE_SEPARATOR, queue + AFTER_SEPARATOR)).fetchone()[0])


def lanes(connection: sqlite3.Connection, queues: Sequence[str], limit: int) -> list[Lane]:
    """Lanes that have messages, up to ``limit`` of each queue."""
    return [lane for queue in queues for lane in _lanes_of(connection, queue, limit)]


def _lanes_of(connection: sqlite3.Connection, queue: str, limit: int) -> list[Lane]:
    # From a random place on, and around: the names begin with digests.
    first, last = queue + LANE_SEPARATOR, queue + AFTER_SEPARATOR
    start = f"{first}{random.getrandbits(32):08x}"
    rows = connection.execute(_SQL["some"], (start, last, limit)).fetchall()
    if len(rows) < limit:
        rows += connection.execute(_SQL["some"], (first, start, limit - len(rows))).fetchall()
    return [Lane(queue, name[len(first) :], count) for name, count in rows]


def unpark(connection: sqlite3.Connection, owner: leasing.Owner, wanted: Sequence[Lane]) -> list[list[Delivery]]:
    """Lease from lanes."""
    found = []
    for lane in wanted:
        hidden = lane_queue(lane.queue, lane.name)
        taken, ids = leasing.take(connection, owner, [hidden], lane.count)
        connection.executemany(_SQL["move"], [(id, lane.queue) for id in ids])
        connection.execute(_SQL["forget"], (hidden,))
        found.append([delivery._replace(queue=lane.queue) for delivery in taken])
        owner = owner._replace(next_tag=owner.next_tag + len(taken))
    return found


def alive(connection: sqlite3.Connection, owners: Sequence[str]) -> set[str]:
    """Those that are registered and not condemned."""
    return {owner for owner in owners if connection.execute(_SQL["alive"], (owner,)).fetchone()}
