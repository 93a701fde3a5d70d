"""Sees to it that nothing waits behind a slow task: hands unstarted work back and settles what has finished."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from celeriac.engine.consumer import Consumer
from celeriac.errors import CeleriacError

logger = logging.getLogger("celeriac.engine")


class Watchdog:
    """Watches one consumer from a thread of its own, because the slot's main thread is busy with the slow task.

    A body that holds the interpreter's lock without a break (in C code) stops this thread, too.  What waits behind it then
    waits for as long as it does; the amount is still bounded by the budget.
    """

    def __init__(self, consumer: Consumer, patience: float, on_hand_back: Callable[[], None] = lambda: None) -> None:
        """``patience``: seconds that unstarted or finished work may wait behind one running task.  ``on_hand_back()`` is called
        when there is room again because unstarted work was handed back.
        """
        self._on_hand_back = on_hand_back
        self._consumer = consumer
        self._patience = patience
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="celeriac-watchdog", daemon=True)
        self._ended = False

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def wake(self) -> None:
        """There is work to watch over; cheap when it is known already."""
        if not self._busy.is_set():
            self._busy.set()

    def rest(self) -> None:
        """The slot is idle."""
        self._busy.clear()

    def stop(self) -> None:
        """End the thread."""
        self._ended = True
        self._busy.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended:
            self._busy.wait()
            time.sleep(self._patience / 2)
            try:
                self.run_once(time.monotonic())
            except CeleriacError as error:
                logger.debug("The watchdog could not reach the store: %s", error)

    def run_once(self, now: float) -> None:
        """Relieve the consumer if its running task has kept others waiting for too long."""
        if now - self._consumer.progressed_at > self._patience:
            if self._consumer.running() and self._consumer.hand_back("slow_task"):  # else only threads are slow to wake
                self._on_hand_back()
            self._consumer.flush()
