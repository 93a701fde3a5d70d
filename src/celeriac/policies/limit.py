"""How often, and how many at once: what a user declares about a task, a queue, or a key of the arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from celeriac.errors import ConfigurationError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)?\s*([smhd]))?\s*")

SMOOTH_SECONDS = 0.2
"""A limit's usual burst is what it allows in this time: short enough to be smooth, long enough to share round trips."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` (of weights) in any ``period`` seconds."""

    count: int
    period: float

    def __str__(self) -> str:
        unit = next((name for name, seconds in UNITS.items() if seconds == self.period), None)
        return f"{self.count}/{unit}" if unit else f"{self.count}/{self.period:g}s"


def parse_rate(given: Any) -> Rate:
    """A rate as it is written: ``"100/s"``, ``"5/m"``, ``"0.5/m"``, ``"10/30s"``, or a number per second.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(given, Rate):
        return given
    if isinstance(given, (int, float)) and not isinstance(given, bool) and given > 0:
        return Rate(int(given), 1.0) if given == int(given) else Rate(1, 1 / given)
    found = _RATE.fullmatch(given) if isinstance(given, str) else None
    if found is None or float(found[1]) == 0 or float(found[2] or 1) == 0:
        raise ConfigurationError(f"{given!r} is not a rate; write for example '100/s', '10/m', '5/h' or '10/30s'")
    count, period = float(found[1]), float(found[2] or 1) * UNITS[found[3] or "s"]
    return Rate(int(count), period) if count == int(count) else Rate(1, period / count)


class Allowance(NamedTuple):
    """What a limit allows at this moment: as declared, or as changed at run time."""

    rate: Rate | None
    burst: int
    """Of the rate's count: how much at once."""
    concurrency: int | None

    def __str__(self) -> str:
        parts = [str(self.rate)] if self.rate else []
        parts += [f"{self.concurrency} at once"] if self.concurrency is not None else []
        return ", ".join(parts) or "no limit"


def allowance(rate: Any = None, burst: int | None = None, concurrency: int | None = None) -> Allowance:
    """What is allowed, checked.

    Raises:
        ConfigurationError: it contradicts itself.
    """
    parsed = None if rate is None else parse_rate(rate)
    if parsed is None and concurrency is None:
        raise ConfigurationError("A limit has a rate ('100/s'), a concurrency, or both")
    if concurrency is not None and not _is_whole(concurrency):
        raise ConfigurationError(f"A limit's concurrency is a whole number above 0, not {concurrency!r}")
    if burst is not None:
        if parsed is None:
            raise ConfigurationError("A burst is part of a rate, and this limit has none")
        if not _is_whole(burst) or burst > parsed.count:
            raise ConfigurationError(f"A burst of the rate {parsed} is from 1 to {parsed.count}, not {burst!r}")
    if burst is None:
        burst = max(1, round(parsed.count * SMOOTH_SECONDS / parsed.period)) if parsed else 1
    return Allowance(parsed, min(burst, parsed.count) if parsed else 1, concurrency)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Limit:
    """How often tasks may start, how many may run at once, or both, in the whole cluster.

    ::

        @app.task(limits=[Limit("100/s"), Limit(concurrency=3, key="{tenant}")])

    Args:
        rate: at most so many starts in any window of that length, by the store's clock: ``"100/s"``.
        concurrency: at most so many run at once.
        key: each key has its own limit: a template of the arguments (``"{tenant}"``, ``"{order.shop}"``), a list of their names, or a
            function of them.  Without: one limit for all calls.
        weight: what a call costs: a number, a template (``"{pages}"``) or a function of the arguments.  It counts for the rate and
            for the concurrency.  A call that costs more than the whole limit costs the whole limit.
        burst: how much of the rate may start at the same moment.  By default as much as it allows in a fifth of a second.
        name: limits of the same name are one, shared by all tasks that declare it.  By default the task's name and the key.

    Raises:
        ConfigurationError: it contradicts itself.
    """

    rate: str | float | Rate | None = None
    concurrency: int | None = None
    key: Any = None
    weight: int | str | Callable[..., int] = 1
    burst: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        allowed = self.allowed()
        if isinstance(self.weight, bool) or (not isinstance(self.weight, (int, str)) and not callable(self.weight)):
            raise ConfigurationError(
                f"A weight is a number, a template such as '{{pages}}' or a function, not {self.weight!r}"
            )
        if isinstance(self.weight, int):
            most = min(allowed.rate.count if allowed.rate else self.weight, allowed.concurrency or self.weight)
            if not 1 <= self.weight <= most:
                raise ConfigurationError(f"A weight of {self.weight} never fits into a limit of {allowed}")

    def allowed(self) -> Allowance:
        """What it allows as it is declared."""
        return allowance(self.rate, self.burst, self.concurrency)
