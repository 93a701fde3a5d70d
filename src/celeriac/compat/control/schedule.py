"""A look at what brokers hold until it is due, for ``inspect scheduled``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.broker import Broker
from celeriac.compat.control.facade import NotSupported


def peek(broker: Broker, queues: Sequence[str], limit: int) -> list[tuple[float, bytes]]:
    """Due time (seconds since the epoch) and envelope of each queue's first ``limit`` scheduled messages.

    The brokers' contract has no such method, so this goes to their stores.

    Raises:
        NotSupported: this broker cannot be looked into.
    """
    if hasattr(broker, "file"):
        return [row for queue in queues for row in _peek_sqlite(broker, queue, limit)]
    if hasattr(broker, "lists"):
        return [row for queue in queues for row in _peek_redis(broker, queue, limit)]
    if hasattr(broker, "first_scheduled"):
        return [row for queue in queues for row in broker.first_scheduled(queue, limit)]
    raise NotSupported("inspect scheduled on this broker", "`celeriac queues` tells how many tasks are scheduled")


def _peek_sqlite(broker: Any, queue: str, limit: int) -> list[tuple[float, bytes]]:
    statement = "SELECT due, raw FROM scheduled WHERE queue = ? ORDER BY due LIMIT ?"
    rows: list[tuple[float, bytes]] = broker.file.read(lambda c: c.execute(statement, (queue, limit)).fetchall())
    return rows


def _peek_redis(broker: Any, queue: str, limit: int) -> list[tuple[float, bytes]]:
    """A member is a serial number, the length of the list's key, that key, and the envelope (see ``publish.lua``)."""
    with broker._redis.call() as client:
        found = client.zrange(broker.key("schedule", queue), 0, limit - 1, withscores=True)
    return [(score / 1000, _envelope(member)) for member, score in found]


def _envelope(member: bytes) -> bytes:
    _, length, rest = member.split(b":", 2)
    return rest[int(length) :]
