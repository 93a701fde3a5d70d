"""Wakes who waits in other processes when something was committed, within a tenth of a millisecond.

Whoever commits *rings*: it sets a file's times.  Who waits watches that file with inotify for exactly this; the file's
ordinary writes do not wake it.  The database file rings for messages, its ``-wal`` file for results: both exist as long
as anybody has the database open, so nothing has to be created or cleaned up.

A process that dies between its commit and the ring leaves the bell unrung, so who waits also looks by itself now and
then.  Without inotify (macOS, BSD, or when a user's inotify instances are used up) it only looks, more often.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LOOK_INTERVAL = 0.1
"""Seconds between looks when inotify works: bounds the delay after a process died between commit and ring."""

POLL_FIRST, POLL_LONGEST = 0.003, 0.025
"""Seconds between looks without inotify: short at first, for a message that follows soon, then longer.  A look costs
about 0.1 ms of CPU, so shorter ones would cost an idle process more than half a per cent of a core."""

_PAUSE = 0.002
"""Seconds to rest after a ring that was for somebody else, so that a busy neighbour does not keep us spinning."""

_IN_ATTRIB = 0x4
_IN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


def ring(path: str) -> None:
    """Wake all who wait on this file.  Never fails: who waits will look by itself."""
    with suppress(OSError):
        os.utime(path)


def wait_for(path: str, look: Callable[[], bool], timeout: float) -> bool:
    """Block until ``look()`` is true, up to ``timeout`` seconds of monotonic time; return what it said last."""
    deadline = time.monotonic() + timeout
    with _watch(path) as descriptor:
        rang, nap = False, POLL_FIRST
        # Looked at after the watch is set, so that nothing falls between the two.
        while not look():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if rang:
                time.sleep(min(remaining, _PAUSE))
            rang = _sleep(descriptor, deadline - time.monotonic(), nap)
            nap = min(nap * 1.05, POLL_LONGEST)
    return True


def _sleep(descriptor: int | None, remaining: float, nap: float) -> bool:
    """Sleep until the bell rings or it is time to look; return whether it rang."""
    if descriptor is None:
        time.sleep(max(0.0, min(remaining, nap)))
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rang = bool(poll.poll(max(1.0, min(remaining, LOOK_INTERVAL) * 1000)))
    if rang:
        _drain(descriptor)
    return rang


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        os.read(descriptor, 65536)


@contextmanager
def _watch(path: str) -> Iterator[int | None]:
    descriptor = _inotify(path)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _inotify(path: str) -> int | None:
    if _LIBC is None:
        return None
    descriptor = int(_LIBC.inotify_init1(_IN_FLAGS))
    if descriptor < 0:
        return None
    if _LIBC.inotify_add_watch(descriptor, os.fsencode(path), _IN_ATTRIB) < 0:
        os.close(descriptor)
        return None
    return descriptor


def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
    return library if hasattr(library, "inotify_init1") else None


_LIBC = _libc()
