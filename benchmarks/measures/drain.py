"""Drain: how fast a backlog is worked off.

The queue is filled first, then the workers start.  Time runs from the moment 10 % are done, so that starting up does
not count, until nothing waits and nothing is in work.  The benchmark looks from outside, a few times per second.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from benchmarks.cases import Case, Effort
from benchmarks.processes import Group
from benchmarks.running import STALLED_AFTER, Sample, Stalled, running
from benchmarks.site import Site, open_site
from benchmarks.systems import System

WARM_SHARE = 0.1
INTERVAL = 0.04
"""Seconds between two looks.  More often would cost the measured system CPU, less often precision."""

FEWEST, MOST = 300, 2_000_000
"""Messages."""

TOO_SHORT = 0.5
"""Share of the intended time below which a drain says little and is done again with more messages."""

LONGEST = 2.5
"""Times the intended time, after which the rest is left undone: the rate is known by then."""


class Drained(NamedTuple):
    rate: float
    """Tasks per second."""
    seconds: float
    done: int
    cpu: float
    """CPU seconds of the workers."""


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    guess = system.rate / (1 + case.rtt) * effort.drain_seconds
    count = effort.sizes.get(case, int(guess))
    for _ in range(3):
        count = max(FEWEST, min(count, MOST))
        figures = _measure(system, case, effort, count)
        effort.sizes[case] = int(figures["rate"] * effort.drain_seconds)
        if figures["seconds"] > effort.drain_seconds * TOO_SHORT or count == MOST:
            break
        count = effort.sizes[case]
    return figures


def _measure(system: System, case: Case, effort: Effort, count: int) -> dict[str, float]:
    with open_site(results=case.results, rtt=case.rtt) as site:
        system.preload(site, count)
        if (found := system.remaining(site)) != count:
            raise RuntimeError(f"{count} messages were sent and {found} found")
        look = _commands_of_a_look(system, site)
        site.redis.config_resetstat()
        with running(system, site) as group:
            samples, cpu = _watch(system, site, group, count, effort.drain_seconds * LONGEST)
            drained = _rate(samples, count, cpu)
            figures = {"rate": drained.rate, "seconds": drained.seconds, "tasks": float(drained.done)}
            figures["cpu_us"] = drained.cpu / drained.done * 1e6
            # Of the whole run, the first 10 % included.
            done = count - samples[-1].remaining
            if system.on_redis:
                figures["commands"] = (_commands(site) - look * len(samples)) / done
            if site.proxy:
                figures["round_trips"] = site.proxy.round_trips() / done
            return figures


def _watch(system: System, site: Site, group: Group, count: int, longest: float) -> tuple[list[Sample], float]:
    """Look until nothing is left, or the rate is known well enough; also return the workers' CPU seconds since 10 %."""
    samples = [Sample(time.monotonic(), count)]
    warm_at = progressed = 0.0
    warm_cpu: dict[int, float] = {}
    while samples[-1].remaining or samples[-2].remaining:
        time.sleep(INTERVAL)
        samples.append(Sample(time.monotonic(), system.remaining(site)))
        group.check()
        now, remaining = samples[-1]
        if remaining != samples[-2].remaining or not progressed:
            progressed = now
        elif remaining and now - progressed > STALLED_AFTER:
            raise Stalled(f"{remaining} of {count} tasks were not done: {group.last_output()}")
        if not warm_at and remaining <= count * (1 - WARM_SHARE):
            warm_at, warm_cpu = now, group.cpu_times()
        if warm_at and now - warm_at > longest:
            break
    return samples, group.cpu_seconds_since(warm_cpu)


def _rate(samples: list[Sample], count: int, cpu: float) -> Drained:
    """From the first look at which 10 % were done to the first at which all were."""
    first = next(sample for sample in samples if sample.remaining <= count * (1 - WARM_SHARE))
    last = next((sample for sample in samples if not sample.remaining), samples[-1])
    if last is first:
        # Done between two looks: all that is known is that it was faster than this.
        first = samples[max(0, samples.index(last) - 1)]
    done, seconds = first.remaining - last.remaining, last.at - first.at
    return Drained(done / seconds, seconds, done, cpu)


def _commands_of_a_look(system: System, site: Site) -> int:
    """Commands of the benchmark itself, to be left out."""
    before = _commands(site)
    system.remaining(site)
    return _commands(site) - before - 1


def _commands(site: Site) -> int:
    """Commands that the server has run, those inside scripts counted."""
    return sum(command["calls"] for command in site.redis.info("commandstats").values())
