"""Everything that knows Celery.  Nothing outside this package imports ``celery`` or ``kombu``."""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

TRANSPORT_ALIASES.setdefault("sqlite", "celeriac.compat.transport.sqlite:Transport")
TRANSPORT_ALIASES.setdefault("postgresql", "celeriac.compat.transport.postgres:Transport")
TRANSPORT_ALIASES.setdefault("postgres", "celeriac.compat.transport.postgres:Transport")
"""Kombu finds its transports by name.  Named here, so that every program that imports an app of ours has it."""
