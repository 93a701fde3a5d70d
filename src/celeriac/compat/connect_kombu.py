"""Brokers without an engine: any transport that kombu has."""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat.through_kombu.broker import KombuBroker
from celeriac.compat.through_kombu.traits import check, is_known, traits_of
from celeriac.settings import EngineSettings

OTHERS = frozenset(TRANSPORT_ALIASES) - {"redis", "rediss", "sentinel", "SQS", "SLMQ"}
"""Kombu's transports, once each."""

__all__ = ["OTHERS", "check_worker", "is_known", "open_broker"]


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    return KombuBroker(app, url)


def check_worker(app: Any, url: str, engine: EngineSettings) -> None:
    """See whether a worker can do what its app asks for.  Raises ``ConfigurationError`` with the way out where it cannot."""
    check(app, url, traits_of(url), engine)
