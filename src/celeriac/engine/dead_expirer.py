"""Deletes dead letters that are older than ``celeriac_dead_max_age``."""

from __future__ import annotations

import time
from collections.abc import Callable

from celeriac.broker import Broker

PAUSE_SECONDS = 600.0
BATCH = 100
"""Small, because each letter comes with its message, and others wait for it."""


class DeadExpirer:
    """Cleans the dead letters, a batch at a time.  Several nodes may do it at once.

    Args:
        broker: where they are.
        max_age: seconds.
        clock: wall-clock time, as workers write it into the letters.
    """

    name = "dead_expirer"

    def __init__(self, broker: Broker, max_age: float, clock: Callable[[], float] = time.time) -> None:
        self._broker = broker
        self._max_age = max_age
        self._clock = clock

    def run_once(self) -> float:
        """Delete one batch; come back soon when it was full."""
        return 0.5 if self._broker.expire_dead(self._clock() - self._max_age, BATCH) >= BATCH else PAUSE_SECONDS
