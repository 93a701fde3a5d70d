"""Deletes results that have outlived ``result_expires``, without a beat process."""

from __future__ import annotations

from celeriac.backend import Backend

PAUSE_SECONDS = 60.0
BATCH = 1000
"""Small, so that writers do not wait long for it."""


class Expirer:
    """Cleans the result store, a batch at a time."""

    name = "expirer"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def run_once(self) -> float:
        """Delete one batch; come back soon when it was full."""
        return 0.2 if self._backend.expire(BATCH) >= BATCH else PAUSE_SECONDS
