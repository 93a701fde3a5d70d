"""What is to be measured, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Case(NamedTuple):
    """One measurement to make."""

    measure: str
    system: str
    results: bool = False
    """Whether results are stored."""
    rtt: float = 0.0
    """Added round-trip time, in milliseconds."""

    @property
    def conditions(self) -> str:
        """For people: under which conditions."""
        return f"results {'on' if self.results else 'off'}, {self.rtt:g} ms"


ALWAYS_REPEATED = frozenset({"drain"})
NEVER_REPEATED = frozenset({"queued", "scheduled"})
PRINCIPALS = frozenset(
    {
        *("celeriac", "celeriac-sqlite", "celeriac-rabbitmq", "celeriac-postgres", "celeriac-results"),
        *("celery", "celery-rabbitmq", "limit"),
    }
)
"""Systems that the goals speak of."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often.  Times are in seconds."""

    repeats: int = 3
    drain_seconds: float = 8.0
    """How long a drain should take: the number of messages follows from it."""
    send_seconds: float = 4.0
    steady_seconds: float = 20.0
    steady_rate: float = 50.0
    """Messages per second."""
    cpu_tasks: int = 1600
    """Of 10 ms each, for two slots."""
    slow_seconds: float = 10.0
    short_tasks: int = 1000
    backlog: int = 1_000_000
    """Messages for the rows on memory."""
    idle_seconds: float = 10.0
    pattern_tasks: int = 400
    """Sent and run in each turn."""
    sizes: dict[Case, int] = field(default_factory=dict)
    """Messages per drain, as learned from earlier ones."""

    def repeats_of(self, case: Case) -> int:
        """How often a case is measured: the peers' drains as often as our own, the rest of theirs once."""
        if case.measure in NEVER_REPEATED:
            return 1
        return self.repeats if case.measure in ALWAYS_REPEATED or case.system in PRINCIPALS else 1


QUICK = Effort(
    repeats=1,
    drain_seconds=2.0,
    send_seconds=1.0,
    steady_seconds=4.0,
    cpu_tasks=400,
    slow_seconds=4.0,
    short_tasks=400,
    backlog=100_000,
    idle_seconds=4.0,
    pattern_tasks=100,
)
"""For a first look: noisy."""
