"""Kills one worker slot in the middle of a picture."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from demo.journal import Entry
from demo.progress import RunProgress

PROC = Path("/proc/self/stat")
"""Linux has it, and may be without ``ps``; macOS and the BSDs the other way round."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A slot that was killed."""

    task: Entry
    """The start of the body that it was running."""
    at: float
    """Seconds since the epoch."""


def kill_busy_slot(worker: int, progress: RunProgress) -> Crash | None:
    """SIGKILL a slot of the worker with this process id that is busy with a picture; None when none is.

    The slot is stopped before it is looked at for the second time: what it has not written in the journal by then, it
    has not finished.
    """
    progress.update()
    slots = descendants(worker)
    for entry in list(progress.running.values()):
        if entry.task == "resize" and entry.pid in slots:
            os.kill(entry.pid, signal.SIGSTOP)
            progress.update()
            if progress.running.get(entry.run) == entry:
                os.kill(entry.pid, signal.SIGKILL)
                return Crash(entry, time.time())
            os.kill(entry.pid, signal.SIGCONT)
    return None


def descendants(ancestor: int) -> set[int]:
    """Process ids of children, their children, and so on."""
    parents = _parents_from_proc() if PROC.exists() else _parents_from_ps()
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def _parents_from_proc() -> dict[int, int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # "pid (name) state ppid ...", and the name may hold spaces and parentheses
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parents


def _parents_from_ps() -> dict[int, int]:
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    return {int(pid): int(parent) for pid, parent in (line.split() for line in table.splitlines())}
