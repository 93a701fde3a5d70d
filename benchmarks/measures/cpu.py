"""CPU: how much of two cores reaches tasks that need all of them, 10 ms at a time.

What the cores can do is measured in the same minute: two bare processes run the same loop before and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

from benchmarks.bodies import burn
from benchmarks.cases import Case, Effort
from benchmarks.running import STALLED_AFTER, running, wait_for
from benchmarks.site import ROOT, Site, open_site
from benchmarks.systems import System, part

TASK_SECONDS = 0.01
SLOTS = 2
WARM_SHARE = 0.1

BARE = "import sys; from benchmarks.bodies import burn; [burn(int(sys.argv[1])) for _ in range(int(sys.argv[2]))]"


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    rounds = _calibrate()
    before = _bare(rounds, effort.cpu_tasks)
    rate = _drain(system, case, rounds, effort.cpu_tasks)
    bare = (before + _bare(rounds, effort.cpu_tasks)) / 2
    return {"rate": rate, "bare": bare, "percent": 100 * rate / bare}


def _drain(system: System, case: Case, rounds: int, count: int) -> float:
    with open_site(results=case.results, rtt=case.rtt) as site:
        system.send(site, [part("burn", count, rounds)])
        with running(system, site) as group:
            # Records come from the task bodies: looking now and then is enough.
            longest = STALLED_AFTER + 4 * count * TASK_SECONDS
            wait_for(lambda: len(site.records()) >= count, group, longest, interval=0.5)
        return _rate(site)


def _bare(rounds: int, count: int) -> float:
    """Runs per second of the same loop in two processes that do nothing else."""
    with open_site(results=False, rtt=0) as site:
        command = [sys.executable, "-c", BARE, str(rounds), str(count // SLOTS)]
        processes = [subprocess.Popen(command, env=site.environment(near=True), cwd=ROOT) for _ in range(SLOTS)]
        for process in processes:
            process.wait()
        return _rate(site)


def _rate(site: Site) -> float:
    """Runs per second between the end of the first 10 % and the end of the last."""
    ends = sorted(end for _, end in site.records())
    first = int(len(ends) * WARM_SHARE)
    return (len(ends) - 1 - first) / (ends[-1] - ends[first])


@lru_cache
def _calibrate() -> int:
    """Rounds of the loop that take 10 ms of CPU time on this machine."""
    os.environ.setdefault("BENCH_LOG", str(Path(os.devnull)))
    rounds = 10_000
    while True:
        started = time.process_time()
        burn(rounds)
        spent = time.process_time() - started
        if spent >= TASK_SECONDS:
            return int(rounds * TASK_SECONDS / spent)
        rounds *= 2
