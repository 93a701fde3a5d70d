"""Celeriac: a drop-in production engine for Celery apps."""

from celeriac.compat.app import Celery, upgrade
from celeriac.compat.long_work.errors import Cancelled, CursorLost, NoTaskHere
from celeriac.compat.long_work.functions import check_cancelled, cursor, is_cancelled, progress
from celeriac.compat.snooze import Snooze
from celeriac.errors import CeleriacError, InvalidPayload, NotUnique, QueueFull
from celeriac.policies.circuit_breaker import Breaker, CircuitOpen
from celeriac.policies.limit import Limit
from celeriac.policies.retries import Retry
from celeriac.version import __version__

__all__ = [
    "Breaker",
    "Cancelled",
    "CeleriacError",
    "Celery",
    "CircuitOpen",
    "CursorLost",
    "InvalidPayload",
    "Limit",
    "NoTaskHere",
    "NotUnique",
    "QueueFull",
    "Retry",
    "Snooze",
    "__version__",
    "check_cancelled",
    "cursor",
    "is_cancelled",
    "progress",
    "upgrade",
]
