"""The production patterns: what each costs a task, over a plain one, on each store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from benchmarks.cases import Case, Effort
from benchmarks.processes import ProcessFailed
from benchmarks.site import ROOT, open_site
from benchmarks.systems import System


def measure_of(pattern: str) -> Callable[[System, Case, Effort], dict[str, float]]:
    """The measure of one pattern."""

    def measure(system: System, _case: Case, effort: Effort) -> dict[str, float]:
        with open_site(results=True, rtt=0) as site:
            url = {**site.environment(near=True), **system.environment(site)}["BENCH_URL"]
            command = [str(system.bin / "python"), "-m", "benchmarks.patterns", pattern, url, str(effort.pattern_tasks)]
            if url.startswith("amqp"):  # which keeps no state
                command.append(site.near_url)
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ProcessFailed(" | ".join(done.stderr.strip().split("\n")[-3:]))
            figures: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
            return figures

    return measure
