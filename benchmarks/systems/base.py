"""The interface of a measured system."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.processes import ProcessFailed
from benchmarks.site import ROOT, Site

VENVS = ROOT / "benchmarks" / ".venv"
REQUIREMENTS = ROOT / "benchmarks" / "requirements"

Part = Mapping[str, Any]
"""What to send: ``task``, ``count`` and perhaps ``args`` and ``countdown``.  See :mod:`benchmarks.produce`."""


def part(task: str, count: int, *args: Any, **options: Any) -> Part:
    """``count`` messages of one task.  An argument ``"#"`` becomes the running number."""
    return {"task": task, "count": count, "args": list(args), **options}


class System(ABC):
    """One system under test, at its best documented setting for two cores."""

    name: ClassVar[str]
    """How it is chosen on the command line."""
    title: ClassVar[str]
    """How it is called in tables."""
    settings: ClassVar[str]
    """How it is run, in a few words."""
    app: ClassVar[str]
    """The module with its tasks, run by its own Python."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions are recorded."""
    rate: ClassVar[int] = 1000
    """Tasks per second to expect; where it is wrong, the first measurement corrects it."""
    isolated: ClassVar[bool] = True
    """Whether it has a virtual environment of its own, from ``requirements/<app>.txt``."""
    on_redis: ClassVar[bool] = True

    # -- to be said by each ----------------------------------------------------------------------------------------

    @abstractmethod
    def workers(self) -> list[list[str]]:
        """Commands that start its workers.  The first word is a program of its environment."""

    @abstractmethod
    def remaining(self, site: Site) -> int:
        """Messages that wait or are in work, seen from outside."""

    def environment(self, site: Site) -> Mapping[str, str]:
        """More environment variables for its workers and senders."""
        return {}

    # -- what they share -------------------------------------------------------------------------------------------

    @property
    def home(self) -> str:
        """The name of its environment and of its file of requirements."""
        return self.app.rpartition(".")[2].removesuffix("_app")

    @property
    def bin(self) -> Path:
        """The directory with its Python and its programs."""
        return VENVS / self.home / "bin" if self.isolated else Path(sys.prefix, "bin")

    def worker_commands(self) -> list[list[str]]:
        """The commands of :meth:`workers` with full paths."""
        return [[str(self.bin / program), *rest] for program, *rest in self.workers()]

    def worker_environment(self, site: Site) -> dict[str, str]:
        return site.environment(near=False) | dict(self.environment(site))

    def sender_environment(self, site: Site, *, near: bool) -> dict[str, str]:
        return site.environment(near=near) | dict(self.environment(site))

    def produce(self, site: Site, how: str, work: Any, *, near: bool = True) -> dict[str, float]:
        """Run :mod:`benchmarks.produce` in the system's Python.

        Raises:
            ProcessFailed: it failed; the text has the end of its output.
        """
        done = subprocess.run(
            [str(self.bin / "python"), "-m", "benchmarks.produce", self.app, how],
            input=json.dumps(work),
            env=self.sender_environment(site, near=near),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ProcessFailed("sending: " + " | ".join(done.stderr.strip().split("\n")[-3:]))
        outcome: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
        return outcome

    def send(self, site: Site, parts: Iterable[Part]) -> None:
        """Send without being measured, in the system's fastest way."""
        self.produce(site, "many", list(parts))

    def preload(self, site: Site, count: int) -> None:
        """Fill the queue with ``count`` times ``noop``."""
        self.send(site, [part("noop", count)])
