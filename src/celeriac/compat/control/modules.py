"""Imports modules into a worker that runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from celery.utils.imports import reload_from_cwd

logger = logging.getLogger("celery.worker")


def load(app: Any, modules: Iterable[str], *, anew: bool) -> None:
    """Import modules that are not there yet, and those that are if ``anew``."""
    for name in modules:
        if name not in sys.modules:
            logger.debug("importing module %s", name)
            app.loader.import_from_cwd(name)
        elif anew:
            logger.debug("reloading module %s", name)
            reload_from_cwd(sys.modules[name])
