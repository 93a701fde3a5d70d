"""Processes that the benchmarks start: their output, their CPU time and memory, their end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.servers import die_with_parent

STOP_TIMEOUT = 10.0
"""Seconds."""

LAST_LINES = 6
"""How much of a failed process's output an error quotes."""


class ProcessFailed(RuntimeError):
    """A process ended that should not have, or said no; the text has the end of its output."""


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of one process."""
    spent = process.cpu_times()
    return float(spent.user + spent.system)


class Group:
    """Some processes and all their descendants, whose output goes into one file."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], directory: Path) -> None:
        with self._output.open("ab") as output:
            for command in commands:
                self._processes.append(
                    subprocess.Popen(
                        [*die_with_parent(), *command],
                        env=dict(environment),
                        cwd=directory,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        # Out of the terminal's process group: Ctrl-C is for the benchmark, which then stops them.
                        start_new_session=True,
                    )
                )

    def check(self) -> None:
        """Raise ``ProcessFailed`` when one of those started here has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise ProcessFailed(f"exit code {process.returncode}: {self.last_output()}")

    def last_output(self) -> str:
        lines = self._output.read_text(errors="replace").split("\n") if self._output.exists() else []
        return " | ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:])

    def members(self) -> Iterator[psutil.Process]:
        """All processes, descendants included."""
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                yield root
                yield from root.children(recursive=True)

    def cpu_times(self) -> dict[int, float]:
        """Process id -> seconds of user and system time, of all that live now."""
        spent = {}
        for member in self.members():
            with contextlib.suppress(psutil.Error):
                spent[member.pid] = cpu_seconds(member)
        return spent

    def cpu_seconds_since(self, before: Mapping[int, float]) -> float:
        """What has been spent since :meth:`cpu_times` said ``before``, without that of processes that have ended."""
        return sum(spent - before.get(pid, 0.0) for pid, spent in self.cpu_times().items())

    def memory(self) -> int:
        """Bytes in RAM: private pages, and each process's share of those it shares (PSS)."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.Error):
                total += member.memory_full_info().pss
        return total

    def stop(self) -> None:
        """Kill them all.  Nothing that they hold is needed any more."""
        members = list(self.members())
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(STOP_TIMEOUT)
        psutil.wait_procs(members, STOP_TIMEOUT)
        self._processes.clear()
