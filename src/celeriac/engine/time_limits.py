"""Enforces time limits from outside the process that runs the task."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

from celeriac.engine.ledger import Running
from celeriac.engine.runner import Fate
from celeriac.engine.seats import Roster, SlotHandle

logger = logging.getLogger("celeriac.engine")

CHECK_SECONDS = 0.05
"""How late a limit may be enforced while a task with a limit runs."""
IDLE_SECONDS = 0.2
"""Time between looks while none does: how late a task that has just started may be noticed."""


class TimeLimits:
    """Reads the slots' ledgers and interrupts or kills what runs for too long.

    In ``processes`` and ``solo`` a soft limit arrives as SIGUSR1, as in Celery.  A hard limit kills the slot's process in
    ``processes``; in the other pools, where a kill would hit other tasks, it raises in the task.
    """

    name = "time-limits"

    def __init__(self, roster: Roster, pool: str) -> None:
        self._roster = roster
        self._kills = pool == "processes"
        self._signals = pool in ("processes", "solo")
        self._done: set[tuple[str, int, str]] = set()

    def run_once(self) -> float:
        """Look at every running task once."""
        now = time.monotonic()
        alive: set[tuple[str, int]] = set()
        for slot in self._roster.all():
            for entry in slot.ledger.running():
                if entry.soft_deadline or entry.hard_deadline:
                    alive.add((slot.owner, entry.tag))
                    self._check(slot, entry, now)
        self._done = {done for done in self._done if done[:2] in alive}
        return CHECK_SECONDS if alive else IDLE_SECONDS

    def _check(self, slot: SlotHandle, entry: Running, now: float) -> None:
        for reason, deadline in (("hard", entry.hard_deadline), ("soft", entry.soft_deadline)):
            if deadline and now >= deadline:
                done = (slot.owner, entry.tag, reason)
                if done not in self._done:
                    self._done.add(done)
                    self._enforce(slot, entry, reason, deadline - entry.started)
                return

    def _enforce(self, slot: SlotHandle, entry: Running, reason: str, limit: float) -> None:
        if reason == "hard" and self._kills:
            slot.fates[entry.tag] = (Fate.TIME_LIMIT, f"{limit:g}")
            kill(slot.pid)
        else:
            self._interrupt(slot, entry, reason, limit)

    def _interrupt(self, slot: SlotHandle, entry: Running, reason: str, limit: float) -> None:
        if self._signals:
            os.kill(slot.pid, signal.SIGUSR1)
        else:
            slot.order("interrupt", entry.tag, reason, limit)


def kill(pid: int) -> None:
    """SIGKILL a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
