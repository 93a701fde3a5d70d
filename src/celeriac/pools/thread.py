"""Many jobs at a time, each in a thread: for tasks that wait for something."""

from __future__ import annotations

import threading
from collections.abc import Callable

from celeriac.pool import Job, Pool, Work
from celeriac.pools.event_loop import LoopThread


class ThreadPool(Pool):
    """A fixed number of threads that take from the inbox.  Coroutines share one event loop, so that they can share clients."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._waiting = threading.Condition()
        self._busy = 0
        self._ended = False
        self._threads: list[threading.Thread] = []
        self._loop: LoopThread | None = None

    def start(self, work: Work, on_idle: Callable[[], None]) -> None:
        """See :meth:`Pool.start`."""
        self._work = work
        self._on_idle = on_idle
        for place in range(self._concurrency):
            thread = threading.Thread(target=self._serve, args=(place,), name=f"celeriac-{place}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def drive(self) -> None:
        """See :meth:`Pool.drive`: wakes as many threads as there are jobs."""
        if self._work.inbox:
            with self._waiting:
                self._waiting.notify(len(self._work.inbox))

    def room(self) -> int:
        """See :meth:`Pool.room`."""
        return self._concurrency - self._busy

    def _serve(self, place: int) -> None:
        while True:
            job = self._take()
            if job is None:
                return
            try:
                self._run(job, place)
            finally:
                with self._waiting:
                    self._busy -= 1
                self._on_idle()

    def _take(self) -> Job | None:
        with self._waiting:
            while not self._ended:
                try:
                    job = self._work.inbox.popleft()
                except IndexError:
                    self._waiting.wait()
                else:
                    self._busy += 1
                    return job
        return None

    def _run(self, job: Job, place: int) -> None:
        if not job.is_async:
            self._work.run(job, place)
            return
        with self._waiting:
            if self._loop is None:
                self._loop = LoopThread("celeriac-loop")
        self._loop.submit(self._work.run_async(job, place)).result()

    def stop(self) -> None:
        """See :meth:`Pool.stop`: waits for what runs."""
        with self._waiting:
            self._ended = True
            self._waiting.notify_all()
        for thread in self._threads:
            thread.join()
        if self._loop is not None:
            self._loop.stop()
