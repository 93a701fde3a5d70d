"""Celery's rate limits: how often one worker may start a task (``rate_limit="10/m"``).

All slots of a node share one bucket per task.  A message that comes too early is *admitted* for a later moment: it goes to the
broker's schedule with that due time and a header that says so, and holds no slot meanwhile.  When it comes back it runs without
a second look, on whichever worker takes it, so that the rate of all workers together is the sum of their limits.

Moments are booked up to :data:`HORIZON` ahead; what comes when all of them are taken waits in the schedule for its chance.  That
bounds how long a changed limit takes to have its effect.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery.utils.time import rate

from celeriac.message import ADMITTED_HEADER

__all__ = ["ADMITTED_HEADER", "HORIZON", "Buckets", "interval_of"]

HORIZON = 60.0
"""Seconds.  Longer makes a changed limit slower to take effect; shorter moves what waits in a long backlog more often."""

TOLERANCE = 0.002
"""Seconds that a message may be too early: less than leasing it again would take."""


def interval_of(limit: Any) -> float:
    """Seconds between two starts under a limit as Celery writes it; 0 for no limit.

    Raises:
        ValueError: it is not a limit.
    """
    try:
        per_second = float(rate(limit))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{limit!r} is not a rate limit; write for example 10/s, 10/m or 10/h") from error
    return 1 / per_second if per_second > 0 else 0.0


class Buckets:
    """When each task may be started next, in memory that all slots share.  Made before they are forked."""

    def __init__(self, names: Iterable[str]) -> None:
        """``names`` of all tasks that may be limited; others have one bucket together."""
        self._columns = {name: column for column, name in enumerate(sorted(names), 1)}
        size = 8 * (len(self._columns) + 1)
        self._fd = _shared_file(size)
        self._memory = memoryview(mmap.mmap(self._fd, size)).cast("d")
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among the threads of this process and among processes.  The kernel unlocks for a process that dies."""
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def admit(self, name: str, interval: float) -> tuple[float, bool]:
        """Book the next free moment.

        Returns:
            Seconds until it, 0 for now; and whether it is booked.  It is not when it lies beyond the horizon: then these are the
            seconds after which to try again.
        """
        column, now = self._columns.get(name, 0), time.monotonic()
        with self._locked():
            moment = max(self._memory[column], now)
            wait = moment - now
            if wait > HORIZON:
                return HORIZON, False
            self._memory[column] = moment + interval
        return (0.0 if wait <= TOLERANCE else wait), True

    def reset(self, name: str) -> None:
        """Forget what is booked: the limit has changed."""
        with self._locked():
            self._memory[self._columns.get(name, 0)] = 0.0


def _shared_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("celeriac-rate-limits")
    else:
        fd, path = tempfile.mkstemp(prefix="celeriac-rate-limits-")
        Path(path).unlink()
    os.ftruncate(fd, size)
    return fd
