"""Celeriac: a drop-in production engine for Celery apps."""

from celeriac.compat.app import Celery, upgrade
from celeriac.errors import CeleriacError, NotUnique, QueueFull
from celeriac.version import __version__

__all__ = ["CeleriacError", "Celery", "NotUnique", "QueueFull", "__version__", "upgrade"]
