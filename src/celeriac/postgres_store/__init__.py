"""One schema of a PostgreSQL database as a store: what the PostgreSQL broker and backend have in common."""

from __future__ import annotations

from celeriac.postgres_store.options import PostgresOptions
from celeriac.postgres_store.store import PostgresStore

__all__ = ["PostgresOptions", "PostgresStore"]
