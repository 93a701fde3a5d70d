"""One SQLite file as a store: what the SQLite broker and backend have in common."""

from __future__ import annotations

from celeriac.sqlite_store.store import LOCK_TIMEOUT, SQLiteStore, Synchronous
from celeriac.sqlite_store.urls import path_from_url

__all__ = ["LOCK_TIMEOUT", "SQLiteStore", "Synchronous", "path_from_url"]
