"""Deletes what has outlived its time, in bounded batches."""

from __future__ import annotations

import sqlite3

from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "expire.sql")

DONE_TTL = 86_400.0
"""Seconds that a chord is remembered as done.  A duplicate of a member later than this would count anew, into a chord
that never completes."""


def anything_old(connection: sqlite3.Connection, cutoff: float, done_cutoff: float) -> bool:
    """Whether :func:`expire` may find something; reads four rows."""
    oldest = (
        (_SQL["oldest_result"], cutoff),
        (_SQL["oldest_group"], cutoff),
        (_SQL["oldest_open_chord"], cutoff),
        (_SQL["oldest_done_chord"], done_cutoff),
    )
    rows = [(connection.execute(statement).fetchone(), bound) for statement, bound in oldest]
    return any(row and row[0] <= bound for row, bound in rows)


def expire(connection: sqlite3.Connection, cutoff: float, done_cutoff: float, limit: int) -> int:
    """Delete up to ``limit`` records written at ``cutoff`` or before; return how many."""
    deleted = connection.execute(_SQL["results"], (cutoff, limit)).rowcount
    deleted += connection.execute(_SQL["groups"], (cutoff, limit - deleted)).rowcount
    deleted += _expire_chords(connection, _SQL["done_chords"], done_cutoff, limit - deleted)
    return deleted + _expire_chords(connection, _SQL["open_chords"], cutoff, limit - deleted)


def _expire_chords(connection: sqlite3.Connection, old: str, cutoff: float, limit: int) -> int:
    """Delete chords with their parts; what the limit cuts off is left to the next call."""
    deleted = 0
    for (group_id,) in connection.execute(old, (cutoff, limit)).fetchall():
        if deleted < limit:
            deleted += connection.execute(_SQL["some_parts"], (group_id, limit - deleted)).rowcount
        if deleted < limit:
            deleted += connection.execute(_SQL["chord"], (group_id,)).rowcount
    return deleted
