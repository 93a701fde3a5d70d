"""Celeriac: a drop-in production engine for Celery apps."""

from celeriac.compat.app import Celery, upgrade
from celeriac.compat.snooze import Snooze
from celeriac.errors import CeleriacError, InvalidPayload, QueueFull
from celeriac.policies.retries import Retry
from celeriac.version import __version__

__all__ = ["CeleriacError", "Celery", "InvalidPayload", "QueueFull", "Retry", "Snooze", "__version__", "upgrade"]
