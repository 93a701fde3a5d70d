"""The demo's child processes: each in a session and a log file of its own, none of which outlives the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.guard import signal_groups

ROOT = Path(__file__).parent.parent
"""Where ``demo`` can be imported from."""

STOP_SECONDS = 10.0
"""How long a child may take to finish what it is doing.  A mail takes milliseconds, a picture less than a second."""

TAIL_LINES = 12


class DemoError(Exception):
    """Something that keeps the demo from going on; the text is for its user."""


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    log: Path
    process: subprocess.Popen[bytes]


class Children:
    """Starts children, notices when one ends too early, and stops them all.

    Args:
        logs: folder for one log file per child.
        environment: for the children, on top of this process's own.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._children: list[Child] = []
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "demo.guard"], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
        )

    def start(self, name: str, command: Sequence[str], descriptors: Sequence[int] = ()) -> Child:
        """Start a child that inherits these file descriptors."""
        log = self._logs / f"{name.replace(' ', '-')}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
        self._tell_guard(process.pid)
        child = Child(name, log, process)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises DemoError when a child has ended."""
        for child in self._children:
            status = child.process.poll()
            if status is not None:
                raise DemoError(f"The {child.name} ended with status {status}.{tail(child.log)}")

    def tails(self) -> str:
        """The last lines of all logs."""
        return "".join(tail(child.log) for child in self._children)

    def stop(self) -> None:
        """Ask all children to end, wait, and kill what is left, slots included."""
        groups = [child.process.pid for child in self._children]
        signal_groups(groups, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        signal_groups(groups, signal.SIGKILL)
        for child in self._children:
            child.process.wait()
        self._guard.kill()
        self._guard.wait()

    def _tell_guard(self, pid: int) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.write(b"%d\n" % pid)
            self._guard.stdin.flush()


def tail(path: Path) -> str:
    """The last lines of a log, indented, under its name."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"\n\nThe end of {path}:", *(f"    {line}" for line in lines)])
