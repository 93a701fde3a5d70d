"""Takes messages from the heads of queues."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from celeriac.errors import OwnerLost
from celeriac.message import Delivery
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "lease.sql")

_BEFORE_ALL = -(2**31)


class Owner(NamedTuple):
    """A live owner's row."""

    id: int
    next_tag: int


def live_owner(connection: sqlite3.Connection, name: str) -> Owner:
    """The owner's row.

    Raises:
        OwnerLost: unknown or condemned.
    """
    row = connection.execute(_SQL["owner"], (name,)).fetchone()
    if row is None:
        raise OwnerLost(f"owner {name!r} is not registered, or its leases were taken over")
    return Owner(*row)


def lease(connection: sqlite3.Connection, owner: Owner, queues: Sequence[str], limit: int) -> list[Delivery]:
    """Lease up to ``limit`` messages: by priority, then in the order of the queues, then the oldest first."""
    return take(connection, owner, queues, limit)[0]


def take(
    connection: sqlite3.Connection, owner: Owner, queues: Sequence[str], limit: int
) -> tuple[list[Delivery], list[int]]:
    """The same, with the messages' ids."""
    taken: list[Delivery] = []
    leases: list[tuple[int, int, int]] = []
    waiting = _first_levels(connection, queues)
    while waiting and len(taken) < limit:
        priority, place = heapq.heappop(waiting)
        queue = queues[place]
        head = connection.execute(_SQL["head"], (queue, priority, limit - len(taken))).fetchall()
        for id, raw in head:
            tag = owner.next_tag + len(taken)
            taken.append(Delivery(tag, queue, raw))
            leases.append((owner.id, tag, id))
        connection.execute(_SQL["take_head"], (queue, priority, head[-1][0]))
        if len(taken) < limit:
            _push_level(connection, waiting, queues, place, priority)
    if taken:
        connection.executemany(_SQL["add_lease"], leases)
        connection.execute(_SQL["advance_tag"], (owner.next_tag + len(taken), owner.id))
    return taken, [id for _, _, id in leases]


def any_ready(connection: sqlite3.Connection, queues: Sequence[str]) -> bool:
    """Whether one of the queues has a message."""
    return any(connection.execute(_SQL["has_ready"], (queue,)).fetchone() for queue in queues)


def _first_levels(connection: sqlite3.Connection, queues: Sequence[str]) -> list[tuple[int, int]]:
    """A heap of (priority, place among the queues): the highest priority that each queue has messages of."""
    waiting: list[tuple[int, int]] = []
    for place, queue in enumerate(queues):
        if queue not in queues[:place]:
            _push_level(connection, waiting, queues, place, _BEFORE_ALL)
    return waiting


def _push_level(
    connection: sqlite3.Connection, waiting: list[tuple[int, int]], queues: Sequence[str], place: int, after: int
) -> None:
    row = connection.execute(_SQL["first_priority"], (queues[place], after)).fetchone()
    if row is not None:
        heapq.heappush(waiting, (row[0], place))
