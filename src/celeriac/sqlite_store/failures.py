"""Turns SQLite's errors into this package's, with a text that names the file and the way out.

The text decides, not ``sqlite_errorcode``: Python 3.10 has no such attribute, and SQLite's texts are part of its
stable interface (``sqlite3ErrStr`` in its ``main.c``).
"""

from __future__ import annotations

import sqlite3

from celeriac.errors import SchemaError, StoreError, StoreFull, StoreUnavailable

_KNOWN: tuple[tuple[str, type[StoreError], str], ...] = (
    ("is full", StoreFull, "no room left in {path} or on its disk; nothing was written"),
    ("is locked", StoreUnavailable, "{path} is locked by another process that does not let go of it"),
    ("readonly", StoreUnavailable, "{path} or its directory is read-only for this process"),
    ("unable to open", StoreUnavailable, "cannot open {path}: check that its directory exists and may be written"),
    ("disk I/O", StoreUnavailable, "disk I/O error on {path}"),
    ("permission", StoreUnavailable, "no permission to use {path}"),
    ("not a database", SchemaError, "{path} is not an SQLite database; name another file or move this one away"),
    ("malformed", SchemaError, "{path} is damaged; restore it, or move it away to begin anew"),
    ("binding parameter", StoreError, "{path} cannot hold a value of this type: trying again would not help"),
    ("no such table", SchemaError, "{path} has lost tables of Celeriac; move it away to begin anew"),
)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way just now."""
    return isinstance(error, sqlite3.OperationalError) and "is locked" in str(error)


def translated(error: sqlite3.Error, path: str) -> StoreError:
    """The error to raise in place of one of SQLite's."""
    text = str(error)
    for sign, kind, meaning in _KNOWN:
        if sign in text:
            return kind(f"SQLite: {meaning.format(path=path)} ({text})")
    return StoreUnavailable(f"SQLite: {path}: {type(error).__name__}: {text}")
