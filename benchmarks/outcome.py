"""What was measured: kept while the benchmark runs, written as JSON after each measurement."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.cases import Case
from benchmarks.environments import versions
from benchmarks.site import ROOT
from benchmarks.systems import System
from tests.servers import redis_program

DIRECTORY = ROOT / "benchmarks" / "results"

Figures = Mapping[str, float]


class Outcome:
    """All figures of one run of the benchmark."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        started = datetime.now(timezone.utc).astimezone()
        DIRECTORY.mkdir(exist_ok=True)
        self.path = DIRECTORY / f"{started:%Y-%m-%d-%H%M%S}.json"
        self.environment = environment() | {"started": started.isoformat(timespec="seconds")}
        self._options = dict(options)
        self._systems: dict[str, dict[str, Any]] = {}
        self._measured: dict[Case, list[Figures]] = defaultdict(list)
        self.failures: dict[Case, str] = {}
        """Why a case was not measured, or not each time."""

    def describe(self, system: System) -> None:
        """Note how a system is run, and in which version."""
        described = {"title": system.title, "settings": system.settings, "versions": versions(system)}
        self._systems[system.name] = described

    def add(self, case: Case, figures: Figures) -> None:
        """One measurement more; the file is up to date afterwards."""
        self._measured[case].append(figures)
        self.save()

    def fail(self, case: Case, reason: str) -> None:
        """A measurement that could not be made."""
        self.failures[case] = reason
        self.save()

    def figures(self, case: Case) -> Figures | None:
        """The median of each figure over the repetitions; ``None`` where nothing was measured."""
        measured = self._measured.get(case)
        if not measured:
            return None
        return {name: median(figures[name] for figures in measured) for name in measured[0]}

    @property
    def cases(self) -> list[Case]:
        """What was tried, in order."""
        return list(dict.fromkeys([*self._measured, *self.failures]))

    def save(self) -> None:
        """Write the file."""
        entries = [
            case._asdict()
            | {
                "median": self.figures(case),
                "measured": self._measured.get(case, []),
                "failure": self.failures.get(case),
            }
            for case in self.cases
        ]
        content = {
            "environment": self.environment,
            "options": self._options,
            "systems": self._systems,
            "measurements": entries,
        }
        self.path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def environment() -> dict[str, Any]:
    """The machine and the software that all systems share."""
    redis_version = subprocess.run([redis_program(), "--version"], capture_output=True, text=True, check=False).stdout
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "redis": redis_version.split(" sha=")[0].removeprefix("Redis server v="),
        "commit": commit.stdout.strip(),
        "load_before": psutil.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
