"""The contract of :mod:`celeriac.broker`, on PostgreSQL 14 and newer."""

from __future__ import annotations

from celeriac.brokers.postgres.broker import PRIORITY_STEPS, PostgresBroker

__all__ = ["PRIORITY_STEPS", "PostgresBroker"]
