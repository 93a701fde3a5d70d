"""Everything that knows Celery.  Nothing outside this package imports ``celery`` or ``kombu``."""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

TRANSPORT_ALIASES.setdefault("sqlite", "celeriac.compat.sqlite_transport:Transport")
TRANSPORT_ALIASES.setdefault("postgresql", "celeriac.compat.postgres_transport:Transport")
TRANSPORT_ALIASES.setdefault("postgres", "celeriac.compat.postgres_transport:Transport")
"""Kombu finds its transports by name.  Named here, so that every program that imports an app of ours has it."""
