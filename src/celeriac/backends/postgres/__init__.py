"""The contract of :mod:`celeriac.backend`, on PostgreSQL 14 and newer."""

from __future__ import annotations

from celeriac.backends.postgres.backend import RESULT_TTL, PostgresBackend

__all__ = ["RESULT_TTL", "PostgresBackend"]
