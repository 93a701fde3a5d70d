"""Which worker Celery's helpers for tests start for an app."""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger("celery.worker")

TESTING = "celery.contrib.testing.worker"
"""The module of Celery's that starts workers in tests."""


def serve_tests() -> None:
    """Have Celery's helpers for tests start this worker for an app of ours.  Called each time that they may be about to.

    They make a ``TestWorkController`` of whatever app they are given, and offer no place to say otherwise.
    """
    testing = sys.modules.get(TESTING)
    kind = getattr(testing, "TestWorkController", None)
    if kind is not None and "__new__" not in vars(kind):
        kind.__new__ = staticmethod(_choose)


def _choose(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A worker for the app among these arguments, as ``TestWorkController.__new__``."""
    app = kwargs.get("app") or (args[0] if args else None)
    if not hasattr(app, "embedded"):
        return object.__new__(cls)
    if cls is not sys.modules[TESTING].TestWorkController:
        logger.warning(
            "%s is Celery's worker, which knows nothing of Celeriac's patterns: leave WorkController out", cls.__name__
        )
        return object.__new__(cls)
    from celeriac.compat.embedded import EmbeddedWorker

    return EmbeddedWorker(*args, **kwargs)
