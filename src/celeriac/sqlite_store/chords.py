"""Counts chords inside somebody's transaction: the backend's, or the broker's when it settles."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from celeriac.outcome import ChordPart
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "chords.sql")

CLAIM_TTL = 10.0
"""Seconds that a chord's callback is left to the task that completed it, before another part's task may take it."""

_NO_POSITION = 2**31
"""Stands for an index that the sender did not give: such parts come after the others."""


def count_part(connection: sqlite3.Connection, part: ChordPart, now: float) -> bool:
    """Count a part unless it was counted before; return whether the callback is now the caller's to publish."""
    group_id, task_id, index, payload, _ = part
    if connection.execute(_SQL["is_done"], (group_id,)).fetchone():
        return False
    position = _NO_POSITION if index is None else index
    added = connection.execute(_SQL["add_part"], (group_id, position, task_id, payload)).rowcount
    if added:
        connection.execute(_SQL["count"], (group_id, added, now))
    claim = f"{task_id}/{position}"
    return connection.execute(_SQL["claim"], (group_id, claim, now, now - CLAIM_TTL)).rowcount > 0


def start_chord(connection: sqlite3.Connection, group_id: str, size: int, now: float) -> None:
    """Set a chord's size.  One that is done begins anew."""
    connection.execute(_SQL["start"], (group_id, size, now))


def grow_chord(connection: sqlite3.Connection, group_id: str, more: int, now: float) -> None:
    """Add to a chord's size.  Who had completed it has not any more."""
    connection.execute(_SQL["grow"], (group_id, more, now))


def chord_parts(connection: sqlite3.Connection, group_id: str) -> list[bytes]:
    """Payloads of the parts, in the order of the header."""
    return [payload for (payload,) in connection.execute(_SQL["parts"], (group_id,))]


def finish_chords(connection: sqlite3.Connection, group_ids: Iterable[str], now: float) -> None:
    """Drop the parts and mark the chords as done."""
    for group_id in group_ids:
        connection.execute(_SQL["drop_parts"], (group_id,))
        connection.execute(_SQL["finish"], (group_id, now))
