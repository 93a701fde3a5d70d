"""Circuit breakers: stop calling what does not answer, try it again from time to time, and go on when it does.

::

    closed --failures, or their rate, reach the limit--> open --cooldown over--> half-open --probes succeed--> closed
                                                          ^                          |
                                                          +-------a probe fails------+

The arithmetic is pure: a state, the store's time, and what happened make the next state.  Times are seconds since the epoch by the
store's clock, and that clock may step back: a state knows the latest time that it has seen, and is moved along with the clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from celeriac.errors import CeleriacError, ConfigurationError

BUCKETS = 10
"""Parts of a window: failures leave it a tenth of its length at a time."""

LONGEST_REASON = 200
LONGEST_SECONDS = 7 * 86_400

FAILURES = 5
MINIMUM = 20


class Status(str, Enum):
    """Whether runs are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class WhenOpen(str, Enum):
    """What happens to a task while the breaker is open."""

    PARK = "park"
    """It goes to the schedule; no attempt is counted."""
    FAIL = "fail"
    """It fails with :class:`CircuitOpen`."""
    DEAD_LETTER = "dead_letter"
    """It fails and is kept among the dead letters."""


class CircuitOpen(CeleriacError):
    """The task was not run, because its circuit breaker is open."""


@dataclass(frozen=True)
class Breaker:
    """How a circuit breaker behaves.

    Args:
        name: what all workers know it by; tasks with the same name share it.
        failures: it opens at so many failures within the window; 5 unless there is a ``rate``.
        window: seconds.  Too short and slow failures are never enough; too long and a bad minute is held against a good hour.
        rate: it opens when this share (0 to 1) of the runs within the window failed, of at least ``minimum``.
        minimum: runs in the window before their rate means anything; 20.
        cooldown: seconds that it stays open before it lets probes through.  Too short and what is down is hammered; too long and work
            waits for what has recovered.
        probes: how many runs, at most at once, must succeed to close it.
        when_open: what becomes of tasks meanwhile: ``"park"``, ``"fail"`` or ``"dead_letter"``.
        only: exceptions that count as failures; all unless given.
        ignore: exceptions that do not.

    Raises:
        ConfigurationError: a value that cannot work, or two that contradict each other.
    """

    name: str
    failures: int | None = None
    window: float = 60.0
    rate: float | None = None
    minimum: int | None = None
    cooldown: float = 30.0
    probes: int = 1
    when_open: str = "park"
    only: tuple[type[BaseException], ...] = ()
    ignore: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if not str(self.name).strip() or not isinstance(self.name, str):
            raise ConfigurationError(f"A circuit breaker needs a name, not {self.name!r}")
        self._check_limits()
        if self.when_open not in {each.value for each in WhenOpen}:
            self._refuse(f"when_open is one of {', '.join(each.value for each in WhenOpen)}, not {self.when_open!r}")
        for name in ("only", "ignore"):
            object.__setattr__(self, name, self._exceptions(name))
        if set(self.only) & set(self.ignore):
            self._refuse("an exception is in both only and ignore")

    def _check_limits(self) -> None:
        if self.minimum is not None and self.rate is None:
            self._refuse("minimum belongs to rate, which is not given")
        if self.failures is None and self.rate is None:
            object.__setattr__(self, "failures", FAILURES)
        if self.rate is not None and self.minimum is None:
            object.__setattr__(self, "minimum", MINIMUM)
        for name in ("failures", "minimum", "probes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                self._refuse(f"{name} must be a whole number above 0, not {value!r}")
        for name in ("window", "cooldown"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value <= LONGEST_SECONDS:
                self._refuse(f"{name} must be seconds above 0 (a week at most), not {value!r}")
        if self.rate is not None and not (_is_number(self.rate) and 0 < self.rate <= 1):
            self._refuse(f"rate must be above 0 and at most 1, not {self.rate!r}")

    def _exceptions(self, name: str) -> tuple[type[BaseException], ...]:
        given: Any = getattr(self, name)
        classes = tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else (given,)
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                self._refuse(f"{name} must be exception classes, not {each!r}")
        return classes

    def _refuse(self, text: str) -> None:
        raise ConfigurationError(f"Circuit breaker {self.name!r}: {text}")

    def counts(self, error: BaseException) -> bool:
        """Whether this exception is a failure of what the breaker protects."""
        return (not self.only or isinstance(error, self.only)) and not isinstance(error, self.ignore)

    @property
    def spread(self) -> float:
        """Seconds over which parked tasks come back, so that they do not come all at once."""
        return min(60.0, max(1.0, self.cooldown / 4))

    @property
    def probe_seconds(self) -> float:
        """How long a probe that says nothing more (its process died) keeps its place."""
        return max(10.0, self.cooldown)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Bucket(NamedTuple):
    """Runs of a part of the window."""

    start: float
    failures: int
    total: int


@dataclass(frozen=True, slots=True)
class State:
    """A breaker at one moment."""

    status: Status = Status.CLOSED
    since: float = 0.0
    until: float | None = None
    """Open: when probes begin; ``None``: never, until somebody closes it."""
    buckets: tuple[Bucket, ...] = ()
    probes: tuple[tuple[str, float], ...] = ()
    """Ids of tasks that probe, and until when they are waited for."""
    succeeded: int = 0
    """Probes that did, since it is half-open."""
    openings: int = 0
    """How often it has opened since it was last closed for good."""
    seen: float = 0.0
    """The store's time when the state was made."""
    reason: str = ""
    """Why it opened."""

    def encode(self) -> bytes:
        """For the store."""
        return json.dumps([getattr(self, name) for name in self.__slots__]).encode()

    @classmethod
    def decode(cls, raw: bytes | None) -> State:
        """From the store; what is not there is closed."""
        if raw is None:
            return cls()
        found = dict(zip(cls.__slots__, json.loads(raw), strict=False))
        found["status"] = Status(found["status"])
        found["buckets"] = tuple(Bucket(*bucket) for bucket in found["buckets"])
        found["probes"] = tuple((str(holder), float(deadline)) for holder, deadline in found["probes"])
        return cls(**found)


class Admission(NamedTuple):
    """Whether a run may begin."""

    allowed: bool
    probe: bool = False
    wait: float = 0.0
    """Not allowed: seconds until it is worth to ask again."""


ALLOWED = Admission(allowed=True)
PROBE = Admission(allowed=True, probe=True)


class Tally(NamedTuple):
    """Runs that ended."""

    failures: int = 0
    successes: int = 0
    reason: str = ""
    """The last failure."""


def with_clock(state: State, now: float) -> State:
    """The state as it is after the clock stepped back behind what the state has seen: moved along with it."""
    back = state.seen - now
    if back <= 0:
        return state
    return replace(
        state,
        since=state.since - back,
        until=None if state.until is None else state.until - back,
        buckets=tuple(bucket._replace(start=bucket.start - back) for bucket in state.buckets),
        probes=tuple((holder, deadline - back) for holder, deadline in state.probes),
        seen=now,
    )


def admit(breaker: Breaker, state: State, now: float, holder: str) -> tuple[State, Admission]:
    """Ask for a run of the task with this id."""
    state = with_clock(state, now)
    if state.status is Status.CLOSED:
        return state, ALLOWED
    if state.status is Status.OPEN:
        if state.until is None or now < state.until:
            return state, Admission(allowed=False, wait=breaker.cooldown if state.until is None else state.until - now)
        state = replace(state, status=Status.HALF_OPEN, since=now, probes=(), succeeded=0, seen=now)
    probing = tuple(probe for probe in state.probes if probe[1] > now and probe[0] != holder)
    if len(probing) + state.succeeded >= breaker.probes:
        return state, Admission(allowed=False, wait=min(1.0, breaker.cooldown))
    probing += ((holder, now + breaker.probe_seconds),)
    return replace(state, probes=probing, seen=now), PROBE


def ended(breaker: Breaker, state: State, now: float, tally: Tally, probe: str | None = None) -> State:
    """Runs have ended.

    Args:
        breaker: how it behaves.
        state: before.
        now: the store's time.
        tally: how many, and how.
        probe: the id of the task, when its run was a probe.  Others mean nothing while it is open: they began before.
    """
    state = with_clock(state, now)
    if state.status is Status.CLOSED:
        return _counted(breaker, state, now, tally)
    if state.status is Status.OPEN or probe not in {holder for holder, _ in state.probes}:
        return state
    rest = tuple(each for each in state.probes if each[0] != probe)
    if tally.failures:
        return opened(breaker, state, now, f"a probe failed: {tally.reason}")
    succeeded = state.succeeded + min(1, tally.successes)
    if succeeded >= breaker.probes:
        return State(since=now, seen=now)
    return replace(state, probes=rest, succeeded=succeeded, seen=now)


def _counted(breaker: Breaker, state: State, now: float, tally: Tally) -> State:
    length = breaker.window / BUCKETS
    buckets = [bucket for bucket in state.buckets if now - breaker.window < bucket.start + length]
    is_current = bool(buckets) and buckets[-1].start + length > now
    last = buckets.pop() if is_current else Bucket(now, 0, 0)
    failures, successes, reason = tally
    buckets.append(Bucket(last.start, last.failures + failures, last.total + failures + successes))
    state = replace(state, buckets=tuple(buckets), seen=now)
    failed, total = sum(bucket.failures for bucket in buckets), sum(bucket.total for bucket in buckets)
    least = breaker.minimum or 1
    if failures and breaker.failures is not None and failed >= breaker.failures:
        return opened(breaker, state, now, f"{failed} failures within {breaker.window:g} s: {reason}")
    if failures and breaker.rate is not None and total >= least and failed >= breaker.rate * total:
        return opened(breaker, state, now, f"{failed} of {total} runs failed within {breaker.window:g} s: {reason}")
    return state


def opened(breaker: Breaker, state: State, now: float, reason: str, *, for_good: bool = False) -> State:
    """Open it for the cooldown; or ``for_good``, until somebody closes it."""
    until = None if for_good else now + breaker.cooldown
    return State(
        Status.OPEN, now, until, openings=state.openings + 1, seen=now, reason=" ".join(reason.split())[:LONGEST_REASON]
    )
