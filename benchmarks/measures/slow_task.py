"""One slow task among many short ones, with two slots: does a short one wait behind the slow one?

*Burst*: all are in the queue when the workers start, the slow one in the middle.  A short task waited behind the slow
one if ones that were sent later started earlier; the figure is the longest time between the first of these and it.
*Trickle*: short tasks are sent one by one while the slow one runs; the figure is the longest from sending to start.
"""

from __future__ import annotations

from benchmarks.cases import Case, Effort
from benchmarks.measures.steady import latencies
from benchmarks.running import STALLED_AFTER, running, wait_for, warm
from benchmarks.site import open_site
from benchmarks.systems import System, part

SHORT_SECONDS = 0.001
TRICKLE_RATE = 100.0
MARGIN = 1.0
"""Seconds before the end of the slow task at which sending stops."""


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    trickle = _trickle(system, case, effort)
    return {"burst": _burst(system, case, effort), "trickle": trickle["longest"], "trickle_p99": trickle["p99"]}


def _burst(system: System, case: Case, effort: Effort) -> float:
    half = effort.short_tasks // 2
    short = part("nap", half, SHORT_SECONDS, "#")
    with open_site(results=case.results, rtt=case.rtt) as site:
        system.send(site, [short, part("nap", 1, effort.slow_seconds, half), short])
        with running(system, site) as group:
            wait_for(lambda: len(site.records()) > 2 * half, group, STALLED_AFTER + effort.slow_seconds)
        starts = {int(number): started for number, started, _ in site.records()}
    del starts[half]
    return _longest_overtaken([starts[number] for number in sorted(starts)]) * 1000


def _longest_overtaken(starts: list[float]) -> float:
    """Of starts in the order of sending: the longest time by which one came after a later one."""
    longest, earliest_later = 0.0, starts[-1]
    for start in reversed(starts):
        longest = max(longest, start - earliest_later)
        earliest_later = min(earliest_later, start)
    return longest


def _trickle(system: System, case: Case, effort: Effort) -> dict[str, float]:
    seconds = effort.slow_seconds - MARGIN
    with open_site(results=case.results, rtt=case.rtt) as site, warm(system, site) as group:
        system.send(site, [part("nap", 1, effort.slow_seconds, 0)])
        sent = system.produce(site, "steady", {"rate": TRICKLE_RATE, "seconds": seconds})["sent"]
        wait_for(lambda: len(site.records()) > sent, group, STALLED_AFTER)
        return latencies([record for record in site.records() if len(record) == 2])
