"""Log files of slots (``--logfile=/var/log/%n%I.log``)."""

from __future__ import annotations

import os
from typing import Any

from billiard.process import current_process


def enter_slot(app: Any, place: int | None, hostname: str) -> None:
    """Write this process's log where ``%i`` and ``%I`` say.

    Args:
        app: whose logging is set up.
        place: the slot's among those of its node, from 0; ``None`` where all tasks are in one process.
        hostname: the node's name.
    """
    if place is None:
        return
    current_process().index = place
    logfile = os.environ.get("CELERY_LOG_FILE")
    if logfile and "%i" in logfile.lower():
        app.log.already_setup = False
        app.log.setup(
            int(os.environ.get("CELERY_LOG_LEVEL") or 0), logfile, bool(os.environ.get("CELERY_LOG_REDIRECT")),
            os.environ.get("CELERY_LOG_REDIRECT_LEVEL") or "WARNING", hostname=hostname,
        )  # fmt: skip
