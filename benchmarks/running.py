"""Workers while they run, and waiting for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.processes import Group
from benchmarks.site import ROOT, Site, open_site
from benchmarks.systems import System, part

WARM_TASKS = 50
WARM_TIMEOUT = 30.0
STALLED_AFTER = 30.0
"""Seconds without progress after which a measurement is given up."""


class Stalled(RuntimeError):
    """The workers make no progress."""


class Sample(NamedTuple):
    at: float
    """Monotonic clock, in seconds."""
    remaining: int


@contextlib.contextmanager
def running(system: System, site: Site) -> Iterator[Group]:
    """The system's workers, started now and killed in the end."""
    group = Group(site.directory / "output")
    try:
        group.start(system.worker_commands(), system.worker_environment(site), ROOT)
        yield group
    finally:
        group.stop()


@contextlib.contextmanager
def warm(system: System, site: Site) -> Iterator[Group]:
    """Workers that have run their first tasks and wait for more.

    Raises:
        Stalled: they did not run them.
    """
    with running(system, site) as group:
        system.send(site, [part("tally", WARM_TASKS, "#")])
        wait_for(lambda: len(site.records()) >= WARM_TASKS, group, WARM_TIMEOUT)
        wait_for(lambda: system.remaining(site) == 0, group, WARM_TIMEOUT)
        site.forget_records()
        yield group


def wait_for(condition: Callable[[], bool], group: Group, timeout: float, interval: float = 0.1) -> None:
    """Until it is true.  Raises ``Stalled`` after ``timeout`` seconds, ``ProcessFailed`` when a worker ends."""
    deadline = time.monotonic() + timeout
    while not condition():
        group.check()
        if time.monotonic() > deadline:
            raise Stalled(f"nothing for {timeout:g} s: {group.last_output()}")
        time.sleep(interval)


def verify(system: System, *, results: bool, count: int = 300) -> None:
    """Every task of a few runs exactly once.

    Raises:
        Stalled: some did not run.
        RuntimeError: some ran twice.
    """
    with open_site(results=results, rtt=0) as site:
        system.send(site, [part("tally", count, "#")])
        with running(system, site) as group:
            wait_for(lambda: len(site.records()) >= count, group, STALLED_AFTER)
            wait_for(lambda: system.remaining(site) == 0, group, STALLED_AFTER)
        numbers = sorted(int(number) for (number,) in site.records())
        if numbers != list(range(count)):
            raise RuntimeError(f"{count} tasks were sent, {len(numbers)} runs of {len(set(numbers))} tasks were seen")
