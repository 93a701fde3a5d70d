"""Stops the demo's processes when the demo itself can no longer do so: it was killed, or crashed.

Reads process group ids from its input, one a line.  The input ends when the demo ends, however it ends; then whatever
is left of those groups is stopped.  It runs in a session of its own, so that Ctrl-C does not reach it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE = 3.0
"""Seconds between asking and killing."""


def signal_groups(groups: Iterable[int], number: int) -> list[int]:
    """Send a signal to each group; return those that still exist."""
    return [group for group in groups if _signalled(group, number)]


def _signalled(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


def stop_groups(groups: Iterable[int]) -> None:
    """Ask them to end, and kill them after the grace period."""
    left = signal_groups(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = signal_groups(left, 0)
    signal_groups(left, signal.SIGKILL)


def main() -> None:
    stop_groups([int(line) for line in sys.stdin])


if __name__ == "__main__":
    main()
