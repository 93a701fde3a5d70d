"""One job at a time, in the calling thread: the pool of a ``processes`` slot and of ``solo``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.pool import Pool, Work


class InlinePool(Pool):
    """Runs the inbox in order, in the slot's main thread."""

    def __init__(self, must_pause: Callable[[], bool]) -> None:
        """``must_pause()`` is asked after each run whether the consumer needs its turn before the inbox is empty."""
        self._must_pause = must_pause
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, work: Work, on_idle: Callable[[], None]) -> None:
        """See :meth:`Pool.start`."""
        self._work = work

    def drive(self) -> None:
        """See :meth:`Pool.drive`."""
        inbox, run, must_pause = self._work.inbox, self._work.run, self._must_pause
        while inbox:
            try:
                job = inbox.popleft()
            except IndexError:  # the watchdog was quicker
                return
            if job.is_async:
                self._event_loop().run_until_complete(self._work.run_async(job, 0))
            else:
                run(job, 0)
            if must_pause():
                return

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        """One loop for the life of the slot, so that clients that tasks keep between runs stay usable."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def room(self) -> int:
        """See :meth:`Pool.room`."""
        return 1

    def stop(self) -> None:
        """See :meth:`Pool.stop`."""
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
