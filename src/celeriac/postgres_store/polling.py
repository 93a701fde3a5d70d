"""Waiting without notifications: by looking again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST, LONGEST = 0.005, 0.1
"""Seconds between looks: short at first, for what follows soon, then longer.  A look is one short statement."""


def poll(look: Callable[[], bool], timeout: float) -> bool:
    """Call ``look`` until it is true, up to ``timeout`` seconds; return what it said last."""
    deadline = time.monotonic() + timeout
    nap = SHORTEST
    while not look():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        time.sleep(min(remaining, nap))
        nap = min(nap * 1.3, LONGEST)
    return True
