"""Keeps held keys alive while the tasks that hold them run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from celeriac.errors import StoreError
from celeriac.keyvalue import KeyValueStore, Namespace

logger = logging.getLogger("celeriac.policies")

HELD_SECONDS = 60.0
"""How long a key lasts that nobody renews.  A run frees its key when it ends, and whoever rescues a dead worker does; this is for
what neither can do: a rescuer that does not know the task, a store that lost the message but not the key.  Too low, and a store
that is away for so long lets a second run in; too high, and such a key is stuck for so long."""

RENEW_SECONDS = 20.0
"""Between two renewals: a third of :data:`HELD_SECONDS`, so that two may fail."""


class Renewer:
    """Renews in a thread of its own, which there is only while something is held for longer than a moment.

    Args:
        store: opens the store; called in the process that runs the tasks.
        space: namespace of the keys.
    """

    def __init__(self, store: Callable[[], KeyValueStore], space: Namespace) -> None:
        self._store = store
        self._space = space
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._held: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hold(self, name: str, holder: str) -> None:
        """Renew this key until :meth:`drop`."""
        with self._lock:
            self._held[name, holder] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="celeriac-renewal", daemon=True)
                self._thread.start()

    def drop(self, name: str, holder: str) -> None:
        """Renew it no more."""
        with self._lock:
            self._held.pop((name, holder), None)

    def run_once(self, now: float) -> None:
        """Renew what was last renewed :data:`RENEW_SECONDS` before ``now`` (of the monotonic clock)."""
        with self._lock:
            due = [key for key, renewed in self._held.items() if now - renewed >= RENEW_SECONDS]
        for name, holder in due:
            try:
                kept = self._store().renew(self._space, name, holder, HELD_SECONDS)
            except StoreError as error:
                logger.warning("The key %s could not be renewed: %s", name, error)
                continue
            with self._lock:
                if not kept:
                    self._held.pop((name, holder), None)
                elif (name, holder) in self._held:
                    self._held[name, holder] = now

    def _run(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS / 4)
            self.run_once(time.monotonic())
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
