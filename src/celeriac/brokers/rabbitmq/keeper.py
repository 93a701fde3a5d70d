"""Looks after a worker's connections while its bodies run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from celeriac.errors import CeleriacError

logger = logging.getLogger("celeriac.engine")

SECONDS = 0.5
"""How soon after a lost connection the notes are written anew."""


class Keeper:
    """Calls a function again and again from a thread of its own."""

    def __init__(self, tend: Callable[[], None]) -> None:
        self._tend = tend
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-amqp-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the turn that is under way."""
        self._ended.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self.run_once()

    def run_once(self) -> None:
        """One turn."""
        try:
            self._tend()
        except CeleriacError as error:
            logger.debug("RabbitMQ is out of reach: %s", error)
