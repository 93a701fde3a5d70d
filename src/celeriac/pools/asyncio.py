"""Many coroutines at a time in one event loop, which runs in a thread beside the consumer's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from celeriac.pool import Job, Pool, Work
from celeriac.pools.event_loop import LoopThread

MOST_THREADS = 32
"""Plain functions among the tasks run in so many threads at most."""


class AsyncioPool(Pool):
    """Up to ``concurrency`` tasks at once.  Tasks that are plain functions run in threads, so that they do not stop the loop."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._free = list(range(concurrency))

    def start(self, work: Work, on_idle: Callable[[], None]) -> None:
        """See :meth:`Pool.start`."""
        self._work = work
        self._on_idle = on_idle
        self._thread = LoopThread("celeriac-loop")
        self._threads = ThreadPoolExecutor(min(self._concurrency, MOST_THREADS), "celeriac")
        self._running: set[asyncio.Task[None]] = set()

    def drive(self) -> None:
        """See :meth:`Pool.drive`."""
        if self._work.inbox:
            self._thread.loop.call_soon_threadsafe(self._take)

    def room(self) -> int:
        """See :meth:`Pool.room`."""
        return len(self._free)

    def _take(self) -> None:
        """Start jobs while there is room; only ever called in the loop's thread."""
        while self._free and self._work.inbox:
            try:
                job = self._work.inbox.popleft()
            except IndexError:  # the watchdog was quicker
                return
            task = self._thread.loop.create_task(self._run(job, self._free.pop()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, job: Job, place: int) -> None:
        try:
            if job.is_async:
                await self._work.run_async(job, place)
            else:
                await self._thread.loop.run_in_executor(self._threads, self._work.run, job, place)
        finally:
            self._free.append(place)
            self._take()
            self._on_idle()

    def stop(self) -> None:
        """See :meth:`Pool.stop`: waits for what runs."""
        self._thread.submit(self._finish()).result()
        self._threads.shutdown()
        self._thread.stop()

    async def _finish(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
