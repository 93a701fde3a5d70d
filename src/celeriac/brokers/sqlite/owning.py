"""Owners: who is alive, who is fenced off, who holds what."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from celeriac.errors import OwnerLost
from celeriac.message import Delivery
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "owners.sql")

RESCUE_CUT_SHORT_AFTER = 10.0
"""Seconds after which the messages of a condemned owner are anybody's to rescue.  Until then they are left to whoever
condemned it, who may know which of them had started."""

_REMEMBERED = 86_400.0
"""Seconds that a condemned owner without leases is kept, should nobody unregister it."""


class OwnerRow(NamedTuple):
    """What release and rescue need of an owner."""

    id: int
    condemned: bool


def find(connection: sqlite3.Connection, name: str) -> OwnerRow | None:
    """The owner's row, alive or condemned."""
    row = connection.execute(_SQL["find"], (name,)).fetchone()
    return OwnerRow(row[0], bool(row[1])) if row else None


def register(connection: sqlite3.Connection, name: str, queues: str, deadline: float, now: float) -> None:
    """Add an owner.  Raises ``OwnerLost`` when a condemned one has the name."""
    connection.execute(_SQL["forget_condemned"], (now - _REMEMBERED,))
    if not connection.execute(_SQL["register"], (name, deadline, queues)).rowcount:
        raise OwnerLost(f"owner {name!r} was condemned; register under a new name")


def beat(connection: sqlite3.Connection, names: Sequence[str], queues: str, deadline: float) -> list[str]:
    """Set the deadline of owners; return those that are not alive."""
    return [name for name in names if not connection.execute(_SQL["beat"], (name, deadline, queues)).rowcount]


def unregister(connection: sqlite3.Connection, name: str) -> bool:
    """Delete an owner that holds nothing; return False when it does."""
    owner = find(connection, name)
    if owner is None:
        return True
    if connection.execute(_SQL["holds"], (owner.id,)).fetchone():
        return False
    connection.execute(_SQL["forget"], (owner.id,))
    return True


def condemn(connection: sqlite3.Connection, name: str, now: float) -> None:
    """Fence an owner off."""
    connection.execute(_SQL["condemn"], (name, now))


def expired(connection: sqlite3.Connection, now: float, limit: int) -> list[str]:
    """Names of owners to rescue from."""
    return [name for (name,) in connection.execute(_SQL["expired"], (now, now - RESCUE_CUT_SHORT_AFTER, limit))]


def leased(connection: sqlite3.Connection, name: str, limit: int) -> list[Delivery]:
    """What an owner holds, by ascending tag."""
    return [Delivery(*row) for row in connection.execute(_SQL["leased"], (name, limit))]
