"""How long a worker waits for a broker that is away (``broker_connection_retry`` and its relatives)."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery.app.defaults import DEFAULTS
from celery.platforms import EX_FAILURE

from celeriac.engine.supervisor import Shutdown, Supervisor

logger = logging.getLogger("celery.worker.consumer")

LOOK_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""How long slots have to end when the worker gives up.  What they hold stays leased until another node takes it over."""


def fails_at_once(conf: Any) -> bool:
    """Whether a broker that cannot be reached when the worker starts is an error."""
    startup = conf.broker_connection_retry_on_startup
    return not (conf.broker_connection_retry if startup is None else startup)


def longest_outage(conf: Any) -> float | None:
    """Seconds after which Celery's worker would give a broker up; ``None`` for never.

    Celery's default, 100 tries, would end a worker in the middle of an outage of an hour: here it means to go on trying.
    """
    if not conf.broker_connection_retry:
        return 0.0
    tries = conf.broker_connection_max_retries
    if not tries or tries == DEFAULTS["broker_connection_max_retries"]:
        return None
    return float(sum(min(2 * n, 30) for n in range(1, int(tries) + 1)))  # kombu waits 2, 4, 6 … 30 s between tries


class Patience:
    """Ends a worker whose broker has been away for too long, in a thread of its own."""

    def __init__(self, worker: Any, longest: float) -> None:
        """``longest``: seconds."""
        self._worker = worker
        self._longest = longest
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-patience", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()

    def _run(self) -> None:
        supervisor: Supervisor = self._worker.supervisor
        away_since: float | None = None
        while not self._ended.wait(LOOK_SECONDS):
            if not supervisor.broker_error:
                away_since = None
                continue
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since >= self._longest:
                self._give_up(supervisor)
                return

    def _give_up(self, supervisor: Supervisor) -> None:
        logger.critical(
            "Giving up on the broker (broker_connection_retry, broker_connection_max_retries): %s",
            supervisor.broker_error,
        )
        supervisor.stop(Shutdown.COLD)
        if not self._ended.wait(GRACE_SECONDS):  # nothing can be settled any more, so nothing would end by itself
            logging.shutdown()
            os._exit(EX_FAILURE)
