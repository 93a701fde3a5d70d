"""When to try again: the arithmetic of retries, and what a server's ``Retry-After`` says.

A delay is computed, capped, then spread by jitter (the names are those of AWS's "Exponential Backoff and Jitter"):

    none      d
    full      anything from 0 to d
    equal     anything from d/2 to d
    p (± %)   anything from d·(1 - p/100) to d·(1 + p/100), never above the cap
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple, get_args

from celeriac.errors import ConfigurationError

Growth = Literal["fixed", "linear", "exponential"]
Jitter = Literal["none", "full", "equal"] | float

DEEPEST_CAUSE = 5
"""How many causes of an exception are asked for a ``Retry-After``."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a task is tried again, and after how long.  Times are in seconds."""

    delay: float = 1.0
    """Before the first retry."""
    growth: Growth = "exponential"
    """``fixed``: always the same; ``linear``: two, three, … times as long; ``exponential``: each ``factor`` times the last."""
    factor: float = 2.0
    cap: float = 600.0
    """No delay is longer, but for what a server asks for.  Too low hammers a service that is down; too high sleeps on when it is
    back."""
    jitter: Jitter = "full"
    """``none``, ``full``, ``equal``, or a number: ± percent.  Without any, all that failed together comes back together."""
    times: int | None = 3
    """Retries after the first run; ``None``: not counted, ``retry_for`` must end it then."""
    retry_for: float | None = None
    """Time since the first failed run began, after which no retry begins; ``None``: not bounded."""
    retry_after: float = 3600.0
    """The longest ``Retry-After`` of a server that is honoured; 0: none is."""

    def __post_init__(self) -> None:
        """Raises ``ConfigurationError`` for numbers that cannot work."""
        problem = next(self._problems(), None)
        if problem:
            raise ConfigurationError(f"Retry: {problem}")

    def _problems(self) -> Iterator[str]:
        numbers = {"delay": self.delay, "factor": self.factor, "cap": self.cap, "retry_after": self.retry_after}
        for name, value in numbers.items():
            if not _is_number(value) or value < 0 or not math.isfinite(value):
                yield f"{name} is {value!r}; it is a number of seconds, 0 or more"
        if self.growth not in get_args(Growth):
            yield f"growth is {self.growth!r}; it is one of {', '.join(get_args(Growth))}"
        if self.growth == "exponential" and self.factor < 1:
            yield f"factor is {self.factor!r}: delays would shrink; it is 1 or more"
        if self.cap < self.delay:
            yield f"cap ({self.cap:g} s) is below delay ({self.delay:g} s)"
        if isinstance(self.jitter, str) and self.jitter not in {"none", "full", "equal"}:
            yield f"jitter is {self.jitter!r}; it is none, full, equal or a number of percent"
        if not isinstance(self.jitter, str) and not (_is_number(self.jitter) and 0 <= self.jitter <= 100):
            yield f"jitter is {self.jitter!r}; as a number it is from 0 to 100 percent"
        if self.times is not None and (type(self.times) is not int or self.times < 0):
            yield f"times is {self.times!r}; it is a whole number, or None for no limit"
        if self.retry_for is not None and not (_is_number(self.retry_for) and self.retry_for > 0):
            yield f"retry_for is {self.retry_for!r}; it is a number of seconds above 0"

    @classmethod
    def fixed(cls, delay: float, **more: Any) -> Retry:
        """Always after the same time."""
        return cls(delay, "fixed", **{"cap": max(delay, 600.0), **more})

    @classmethod
    def linear(cls, delay: float, **more: Any) -> Retry:
        """After once, twice, three times the delay."""
        return cls(delay, "linear", **{"cap": max(delay, 600.0), **more})

    @classmethod
    def exponential(cls, delay: float = 1.0, **more: Any) -> Retry:
        """Each time after ``factor`` times the last delay."""
        return cls(delay, "exponential", **{"cap": max(delay, 600.0), **more})

    def bounds(self, retries: int) -> tuple[float, float]:
        """The shortest and the longest delay after a run with so many retries before it."""
        delay = self._delay(retries)
        if self.jitter == "none":
            return delay, delay
        if self.jitter == "full":
            return 0.0, delay
        if self.jitter == "equal":
            return delay / 2, delay
        spread = delay * float(self.jitter) / 100
        return delay - spread, min(delay + spread, self.cap)

    def _delay(self, retries: int) -> float:
        if self.growth == "fixed":
            return self.delay
        if self.growth == "linear":
            return min(self.delay * (retries + 1), self.cap)
        if self.delay == 0 or self.factor == 1:
            return self.delay
        try:
            return min(self.delay * float(self.factor) ** retries, self.cap)
        except OverflowError:  # 2 to the power of 1,024 is out of the range of a float
            return self.cap

    def next_delay(
        self,
        retries: int,
        elapsed: float,
        hint: float | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """Seconds until the next run; ``None``: give up.

        Args:
            retries: so far.
            elapsed: seconds since the first failed run began.
            hint: what a server asked for, in seconds.  The next run is not before, but for :attr:`retry_after`.
            draw: a random number between two.
        """
        if self.times is not None and retries >= self.times:
            return None
        low, high = self.bounds(retries)
        delay = draw(low, high)
        if hint is not None:
            delay = max(delay, min(hint, self.retry_after))
        if self.retry_for is not None and elapsed + delay > self.retry_for:
            return None
        return delay


class Step(NamedTuple):
    """One retry of a schedule.  Times in seconds; run times are not counted."""

    number: int
    """1 is the first retry."""
    shortest: float
    longest: float
    earliest: float
    """Since the first run began."""
    latest: float
    sure: bool
    """Whether it takes place whatever the jitter: the total time is not over even with the longest delays."""


def schedule(retry: Retry, most: int = 100) -> list[Step]:
    """The retries of a task that always fails, at most so many."""
    steps: list[Step] = []
    earliest = latest = 0.0
    for retries in range(most if retry.times is None else min(retry.times, most)):
        low, high = retry.bounds(retries)
        earliest, latest = earliest + low, latest + high
        if retry.retry_for is not None and earliest > retry.retry_for:
            break
        steps.append(
            Step(retries + 1, low, high, earliest, latest, retry.retry_for is None or latest <= retry.retry_for)
        )
    return steps


Rules = Mapping[type[BaseException], "Retry | None"]
"""What to do for each kind of exception; ``None``: never try again."""


def rule_for(rules: Rules, error: BaseException) -> Retry | None:
    """The rule of the most specific kind that an exception is of; ``None``: it is not retried."""
    for kind in type(error).__mro__:
        if kind in rules:
            return rules[kind]
    return None


# -- what the server says ----------------------------------------------------------------------------------------------


def retry_after(error: BaseException, now: float) -> float | None:
    """Seconds that a server asked to wait, from an exception or what caused it; ``None`` when it did not say.

    It is looked for where HTTP clients keep it: an attribute ``retry_after`` (seconds, a ``timedelta`` or a date), then the header
    ``Retry-After`` of ``error.response`` or of the error itself, in seconds or as an HTTP date (RFC 9110, section 10.2.3).

    Args:
        error: what was raised.
        now: seconds since the epoch.
    """
    seen: BaseException | None = error
    for _ in range(DEEPEST_CAUSE):
        if seen is None:
            return None
        said = _said_by(seen)
        if said is not None:
            return parse_retry_after(said, now)
        seen = seen.__cause__
    return None


def _said_by(error: BaseException) -> Any:
    said = getattr(error, "retry_after", None)
    if said is not None:
        return said
    for holder in (getattr(error, "response", None), error):
        headers = getattr(holder, "headers", None)
        get = getattr(headers, "get", None)
        if callable(get):
            said = get("Retry-After")
            if said is None:
                said = get("retry-after")
            if said is not None:
                return said
    return None


def parse_retry_after(said: Any, now: float) -> float | None:
    """Seconds from ``now``, at least 0; ``None`` for what cannot be understood."""
    if isinstance(said, bytes):
        said = said.decode("latin-1")
    if isinstance(said, str):
        said = _parse_text(said.strip())
    if isinstance(said, timedelta):
        said = said.total_seconds()
    if isinstance(said, datetime):
        said = (said if said.tzinfo else said.replace(tzinfo=timezone.utc)).timestamp() - now
    if not _is_number(said) or not math.isfinite(said):
        return None
    return max(0.0, float(said))


def _parse_text(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
