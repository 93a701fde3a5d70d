"""A look at what brokers hold until it is due, for ``inspect scheduled``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.broker import Broker
from celeriac.compat.control.facade import NotSupported


def peek(broker: Broker, queues: Sequence[str], limit: int) -> list[tuple[float, int, bytes]]:
    """Due time (seconds since the epoch), priority and envelope of each queue's first ``limit`` scheduled messages.

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


def _peek_sqlite(broker: Any, queue: str, limit: int) -> list[tuple[float, int, bytes]]:
    statement = "SELECT due, priority, raw FROM scheduled WHERE queue = ? ORDER BY due LIMIT ?"
    rows: list[tuple[float, int, bytes]] = broker.file.read(lambda c: c.execute(statement, (queue, limit)).fetchall())
    return rows


def _peek_redis(broker: Any, queue: str, limit: int) -> list[tuple[float, int, bytes]]:
    """A member is a serial number, the length of the list's key, that key, and the envelope (see ``publish.lua``)."""
    with broker._redis.call() as client:
        found = client.zrange(broker.key("schedule", queue), 0, limit - 1, withscores=True)
    return [(score / 1000, *_split(broker, queue, member)) for member, score in found]


def _split(broker: Any, queue: str, member: bytes) -> tuple[int, bytes]:
    _, length, rest = member.split(b":", 2)
    key, raw = rest[: int(length)].decode(), rest[int(length) :]
    lists = broker.lists(queue)
    return broker.options.priority_steps[lists.index(key)] if key in lists else 0, raw
