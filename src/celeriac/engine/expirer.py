"""Deletes results that have outlived ``result_expires``, and keys that have outlived their time, without a beat process."""

from __future__ import annotations

from celeriac.backend import Backend
from celeriac.keyvalue import KeyValueStore

PAUSE_SECONDS = 60.0
BATCH = 1000
"""Small, so that writers do not wait long for it."""


class Expirer:
    """Cleans a store, a batch at a time."""

    def __init__(self, store: Backend | KeyValueStore, name: str = "expirer") -> None:
        self.name = name
        self._store = store

    def run_once(self) -> float:
        """Delete one batch; come back soon when it was full."""
        return 0.2 if self._store.expire(BATCH) >= BATCH else PAUSE_SECONDS
