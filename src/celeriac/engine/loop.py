"""Runs one background duty in a thread, again and again."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from celeriac.errors import CeleriacError, StoreUnavailable

logger = logging.getLogger("celeriac.engine")

FIRST_RETRY, LONGEST_RETRY = 0.05, 1.0
"""Seconds of pause after a turn that failed, and after several in a row.  A connection that was cut is made again at once; a store that
is away is not hammered."""


class Duty(Protocol):
    """Something to be done regularly."""

    name: str

    def run_once(self) -> float:
        """Do it; return in how many seconds to do it again."""


class Loop:
    """Calls a duty's ``run_once`` from a thread of its own until stopped.  An error is logged, and the duty goes on."""

    def __init__(self, duty: Duty) -> None:
        self.duty = duty
        self.turned_at = time.monotonic()
        """When the last turn ended without an error."""
        self._failures = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"celeriac-{duty.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Have the loop end after the turn that is under way."""
        self._ended.set()

    def join(self, timeout: float = 5.0) -> None:
        """Wait for its end, up to ``timeout`` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(self._turn())

    def _turn(self) -> float:
        try:
            pause = self.duty.run_once()
        except StoreUnavailable as error:
            logger.debug("%s: %s", self.duty.name, error)
            return self._retry_pause()
        except CeleriacError as error:
            logger.warning("%s: %s", self.duty.name, error)
            return self._retry_pause()
        except Exception:
            logger.exception("%s failed; it goes on", self.duty.name)
            return self._retry_pause()
        self.turned_at = time.monotonic()
        self._failures = 0
        return pause

    def _retry_pause(self) -> float:
        self._failures += 1
        return float(min(LONGEST_RETRY, FIRST_RETRY * 4 ** min(self._failures - 1, 5)))
