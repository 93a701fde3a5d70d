"""Celeriac: a drop-in production engine for Celery apps."""

from celeriac.compat.app import Celery, upgrade
from celeriac.errors import CeleriacError, QueueFull

__version__ = "0.1.0"

__all__ = ["CeleriacError", "Celery", "QueueFull", "__version__", "upgrade"]
