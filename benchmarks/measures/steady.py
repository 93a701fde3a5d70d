"""Steady: from just before a message is sent to the first line of its task, at a low rate, on idle workers."""

from __future__ import annotations

from benchmarks.cases import Case, Effort
from benchmarks.running import wait_for, warm
from benchmarks.site import open_site
from benchmarks.systems import System

WARM_SECONDS = 1.0
"""Messages of the first second do not count."""

LATE = 10.0
"""Seconds that the last messages may take."""


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    with open_site(results=case.results, rtt=case.rtt) as site, warm(system, site) as group:
        work = {"rate": effort.steady_rate, "seconds": effort.steady_seconds + WARM_SECONDS}
        sent = system.produce(site, "steady", work, near=False)["sent"]
        wait_for(lambda: len(site.records()) >= sent, group, LATE)
        return latencies(site.records()[int(WARM_SECONDS * effort.steady_rate) :])


def latencies(records: list[tuple[float, ...]]) -> dict[str, float]:
    """Milliseconds from sending to start."""
    waits = sorted((started - sent) * 1000 for sent, started in records)
    return {"p50": _quantile(waits, 0.5), "p99": _quantile(waits, 0.99), "longest": waits[-1]}


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
