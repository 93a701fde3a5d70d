"""Is the worker alive, is it ready: answered from its own state, without asking the broker or a slot.

*Live* means that a restart would not help.  A broker that is down is no reason to restart: the whole fleet would do so
together.  *Ready* means that the worker takes tasks now.  *Started* means that start-up is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a worker, as its supervisor knows it."""

    started: bool
    """Whether the slots were started for the first time."""
    stopping: bool
    loop_ages: Mapping[str, float]
    """Seconds since the last turn of each background loop, by name."""
    slots_alive: int
    slots_wanted: int
    broker_error: str = ""
    """Why the broker cannot be reached, or empty."""
    consuming_age: float | None = None
    """Seconds since a slot with room last asked the broker for messages; ``None`` when all slots are busy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is no longer well."""

    loop_age: float = 60.0
    """Seconds without a turn after which a loop is stuck.  Too low restarts a worker for a slow broker call; too high
    leaves a stuck one in place."""
    consuming_age: float = 15.0
    """Seconds without asking for messages after which the worker is not ready."""
    deaf_age: float = 120.0
    """Seconds without asking for messages, with the broker reachable, after which the worker is not live: it looks
    well and consumes nothing, and only a restart helps."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe."""

    probe: str
    checks: Sequence[Check] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def text(self, *, verbose: bool = False) -> str:
        """``ok``, or a line for each check that failed; all checks with ``verbose``."""
        shown = [check for check in self.checks if verbose or not check.ok]
        lines = [f"[{'+' if check.ok else '-'}] {check.name}: {check.text}" for check in shown]
        return "\n".join([*lines, "ok" if self.ok else f"{self.probe} failed"]) + "\n"


Probe = Callable[[Health, Limits], Verdict]


def livez(health: Health, limits: Limits) -> Verdict:
    """Would a restart help?"""
    loops = [_loop(name, age, limits) for name, age in sorted(health.loop_ages.items())]
    return Verdict("livez", (*loops, _consuming(health, limits.deaf_age, excused=_may_not_consume(health))))


def readyz(health: Health, limits: Limits) -> Verdict:
    """Does the worker take tasks now?"""
    return Verdict(
        "readyz",
        (
            _started(health),
            Check("shutdown", not health.stopping, "shutting down" if health.stopping else "not asked for"),
            Check("slots", health.slots_alive > 0, f"{health.slots_alive} of {health.slots_wanted} alive"),
            Check("broker", not health.broker_error, health.broker_error or "reachable"),
            _consuming(health, limits.consuming_age),
        ),
    )


def startupz(health: Health, limits: Limits) -> Verdict:
    """Is start-up over?"""
    return Verdict("startupz", (_started(health),))


PROBES: Mapping[str, Probe] = {"/livez": livez, "/readyz": readyz, "/startupz": startupz}
"""The probes by path."""


def _started(health: Health) -> Check:
    return Check("started", health.started, "start-up is over" if health.started else "still starting")


def _loop(name: str, age: float, limits: Limits) -> Check:
    return Check(f"loop {name}", age <= limits.loop_age, f"last turn {age:.1f} s ago (limit {limits.loop_age:g} s)")


def _may_not_consume(health: Health) -> str:
    """Why a worker that is well would not ask for messages, or empty."""
    if health.broker_error:
        return "the broker is not reachable"
    if health.stopping:
        return "shutting down"
    return "" if health.started and health.slots_alive else "no slot is up yet"


def _consuming(health: Health, limit: float, excused: str = "") -> Check:
    age = health.consuming_age
    if excused or age is None:
        return Check("consuming", True, excused or "all slots are busy")
    return Check("consuming", age <= limit, f"asked for messages {age:.1f} s ago (limit {limit:g} s)")
