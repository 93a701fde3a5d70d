"""Writes results inside somebody's transaction: the backend's, or the broker's when it settles."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from celeriac.outcome import Result
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "results.sql")


def put_results(connection: sqlite3.Connection, results: Iterable[Result], now: float, *, guarded: bool) -> None:
    """Write results; ``guarded`` keeps a ``SUCCESS`` that is already stored.

    Only that: a ``FAILURE`` may be the lost run of a message that was replayed since, and its new result must count.
    """
    statement = _SQL["put_unless_succeeded" if guarded else "put"]
    connection.executemany(statement, [(task_id, state, now, payload) for task_id, state, payload in results])
