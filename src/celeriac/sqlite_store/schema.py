"""Creates the tables in a new file, upgrades an older one, and refuses a file that is not ours or from a newer version."""

from __future__ import annotations

import sqlite3

from celeriac.errors import SchemaError
from celeriac.sqlite_store.statements import read_sql

APPLICATION_ID = 0x43454C52
"""Marks the file as Celeriac's (``PRAGMA application_id``): "CELR"."""

VERSION = 2
"""Of the schema (``PRAGMA user_version``).  ``schema.sql`` is version 1; each later one is what ``upgrade_<version>.sql`` adds."""

OLDEST_SQLITE = (3, 35, 0)
"""The first with ``RETURNING``."""


def check_library() -> None:
    """Raise :class:`~celeriac.errors.SchemaError` when Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise SchemaError(f"Python's SQLite is {sqlite3.sqlite_version}; Celeriac needs {needed} or later")


def is_current(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the file has our tables.

    Raises:
        SchemaError: it has somebody else's, or those of a version that this one does not know.
    """
    version = _pragma(connection, "user_version")
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    if ours and version == VERSION:
        return True
    if ours:
        if version < VERSION:
            return False
        raise SchemaError(
            f"{path} has version {version} of Celeriac's tables, and this Celeriac knows version {VERSION}: upgrade Celeriac"
        )
    if version or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        if _pragma(connection, "application_id") == APPLICATION_ID:
            return False  # somebody made them while we were looking
        raise SchemaError(f"{path} holds the tables of another program; give Celeriac a file of its own")
    return False


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, or those that an older file lacks.

    To be called in a transaction, so that of many processes that start at once one does it.
    """
    version = _pragma(connection, "user_version")
    for number in range(version + 1, VERSION + 1):
        name = "schema.sql" if number == 1 else f"upgrade_{number}.sql"
        for statement in _split(read_sql(__package__ or "", name)):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _split(script: str) -> list[str]:
    # executescript would do, but it commits the transaction that makes the creation atomic.
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
