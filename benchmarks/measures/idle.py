"""Idle: what workers cost that have nothing to do."""

from __future__ import annotations

import time

from benchmarks.cases import Case, Effort
from benchmarks.measures.memory import MIB
from benchmarks.running import warm
from benchmarks.site import open_site
from benchmarks.systems import System

SETTLE_SECONDS = 3.0
"""After the first tasks, before the measurement."""


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    with open_site(results=case.results, rtt=case.rtt) as site, warm(system, site) as group:
        time.sleep(SETTLE_SECONDS)
        commands = site.redis.info("stats")["total_commands_processed"]
        before, started = group.cpu_times(), time.monotonic()
        time.sleep(effort.idle_seconds)
        spent, seconds = group.cpu_seconds_since(before), time.monotonic() - started
        commands = site.redis.info("stats")["total_commands_processed"] - commands - 1
        return {"percent": 100 * spent / seconds, "commands": commands / seconds, "mib": group.memory() / MIB}
