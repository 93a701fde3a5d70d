"""Memory: whether a backlog, ready or scheduled, is held by the workers.

The workers run while the backlog arrives and as long as it is worked off, up to a limit.  Their memory is that of all
their processes in RAM (PSS).  They have worked off a small backlog before: what they need to work at all is no growth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from typing_extensions import Self

from benchmarks.cases import Case, Effort
from benchmarks.processes import Group
from benchmarks.running import STALLED_AFTER, wait_for, warm
from benchmarks.site import open_site
from benchmarks.systems import System, part
from benchmarks.systems.celery import CeleryMessages

MIB: Final = 1 << 20
INTERVAL = 0.5
WATCH_SECONDS = 30.0
"""How long at most the workers are watched once all messages are there."""

WARM_SECONDS = 2.0
"""How much work the small backlog is."""

REST_SECONDS = 3.0
DUE_IN = 3600.0


def measure_queued(system: System, case: Case, effort: Effort) -> dict[str, float]:
    return _measure(system, case, effort.backlog, None)


def measure_scheduled(system: System, case: Case, effort: Effort) -> dict[str, float]:
    assert isinstance(system, CeleryMessages)
    return _measure(system, case, min(effort.backlog, system.most_scheduled), DUE_IN)


def _measure(system: System, case: Case, count: int, due_in: float | None) -> dict[str, float]:
    assert isinstance(system, CeleryMessages)
    with open_site(results=case.results, rtt=case.rtt) as site:
        plain = system.capture(site, part("noop", 1))
        envelope = plain if due_in is None else system.capture(site, part("noop", 1, countdown=due_in))
        with warm(system, site) as group:
            system.fill(site, plain, min(count, int(system.rate * WARM_SECONDS)), None)
            wait_for(lambda: system.remaining(site) == 0, group, STALLED_AFTER, INTERVAL)
            base = group.memory()
            with PeakMemory(group) as peak:
                system.fill(site, envelope, count, None if due_in is None else time.time() + due_in)
                _wait_until_empty(lambda: system.ready(site), group)
    growth = max(0, peak.bytes - base)
    return {"base_mib": base / MIB, "growth_mib": growth / MIB, "messages": float(count), "per_message": growth / count}


def _wait_until_empty(ready: Callable[[], int], group: Group) -> None:
    deadline = time.monotonic() + WATCH_SECONDS
    while ready() and time.monotonic() < deadline:
        group.check()
        time.sleep(INTERVAL)
    time.sleep(REST_SECONDS)


class PeakMemory:
    """The most memory that some processes had while this was open."""

    def __init__(self, group: Group) -> None:
        self.bytes = 0
        self._group = group
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(INTERVAL):
            self.bytes = max(self.bytes, self._group.memory())
