"""The arithmetic of limits: pure functions of a state and the store's time.

A rate of *n* per *period* is kept in two ways at once.  A record of what was granted lately sees to it that no window of the period's
length has more than *n* starts.  A virtual schedule (the generic cell rate algorithm, ITU-T I.371) spreads them, with the burst as its
tolerance, so that a limit of 60 per minute starts one each second and not 60 at once.

A start comes a little after its grant: at most :func:`guard` seconds, or it needs a new grant.  So the record looks back by the period
and that guard, and what holds for grants in the longer window holds for starts in the shorter one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from celeriac.policies.limit import Allowance, Rate

GUARD_SHARE, SHORTEST_GUARD, LONGEST_GUARD = 0.01, 0.01, 1.0
"""Of a period, in seconds.  Less, and tasks on a busy machine need a second grant more often; more, and more of the rate is unused."""

SPREAD = 1.005
"""The virtual schedule is that much slower than the record allows, so that it, which forgives lateness, is what holds in the long run."""

LEAST_TOLERANCE = 0.1
"""Seconds that one start may be ahead of the virtual schedule, so that who asks a little late loses nothing."""

BUCKETS = 200
"""Grants of a large rate are recorded in so many steps of its window: bounds the state's size.  Fewer leave more of the rate unused."""

HORIZON = 30.0
"""Seconds ahead for which messages are told to come back at a moment of their own."""

EPSILON = 1e-6
"""Seconds since the epoch, as floating point numbers, are exact to about a quarter of a microsecond."""


def guard(rate: Rate) -> float:
    """Seconds after a grant within which the task must start."""
    return min(LONGEST_GUARD, max(SHORTEST_GUARD, GUARD_SHARE * rate.period))


def window(rate: Rate) -> float:
    """Seconds for which a grant is remembered."""
    return rate.period + guard(rate)


def interval(rate: Rate) -> float:
    """Seconds between two starts of weight 1 in the virtual schedule."""
    return window(rate) * SPREAD / rate.count


def tolerance(allowed: Allowance, weight: int) -> float:
    """Seconds that the virtual schedule may be ahead."""
    assert allowed.rate is not None
    step = interval(allowed.rate)
    return max((max(allowed.burst, weight) - 1) * step, min(step, LEAST_TOLERANCE))


class LimitState(NamedTuple):
    """What is known of one limit (for one key of it).  Times are the store's, in seconds since the epoch."""

    next_at: float = 0.0
    """When the virtual schedule has its next place."""
    grants: tuple[tuple[float, int], ...] = ()
    """When how much was granted, oldest first."""
    held: Mapping[str, Mapping[str, int]] = {}
    """Who runs something at this moment: owners, their permits, and the weight of each."""
    booked_until: float = 0.0
    """Until when those who were refused have been told to come back, on brokers without lanes."""

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(list(self), separators=(",", ":")).encode()


def decode(raw: bytes | None) -> LimitState:
    """A stored state; nothing stored is a limit that nobody has used lately."""
    if raw is None:
        return LimitState()
    next_at, grants, held, booked_until = json.loads(raw)
    return LimitState(next_at, tuple((at, units) for at, units in grants), held, booked_until)


def settled(state: LimitState, allowed: Allowance, now: float) -> LimitState:
    """The same state without what is over.  When the clock was set back, what lies in the future counts as granted just now."""
    if allowed.rate is None:
        return state._replace(next_at=0.0, grants=())
    since = now - window(allowed.rate)
    grants = tuple((min(at, now), units) for at, units in state.grants if at > since)
    return state._replace(
        next_at=min(state.next_at, _latest(allowed, now), _latest_after(grants, allowed)), grants=grants
    )


def is_astray(state: LimitState, allowed: Allowance, now: float) -> bool:
    """Whether a state lies further in the future than it can: the clock was set back, or the limit changed.  It must be written then
    as it is when settled, or "just now" would be another moment each time that somebody looks.
    """
    if allowed.rate is None:
        return False
    return any(at > now for at, _ in state.grants) or state.next_at > _latest(allowed, now)


def _latest(allowed: Allowance, now: float) -> float:
    assert allowed.rate is not None
    return now + tolerance(allowed, allowed.rate.count) + interval(allowed.rate) * allowed.rate.count


def _latest_after(grants: tuple[tuple[float, int], ...], allowed: Allowance) -> float:
    """Where the virtual schedule may be at most after these grants.  It is further when they were granted under a lower rate, which
    was raised since.
    """
    if not grants:
        return math.inf
    assert allowed.rate is not None
    most = max(units for _, units in grants)
    return grants[-1][0] + tolerance(allowed, most) + interval(allowed.rate) + EPSILON


# -- how often ---------------------------------------------------------------------------------------------------------


def wait_for_rate(state: LimitState, allowed: Allowance, weight: int, now: float) -> float:
    """Seconds until a start of this weight is allowed; 0: now.  ``state`` is settled."""
    rate = allowed.rate
    if rate is None:
        return 0.0
    weight = min(weight, rate.count)
    ahead = max(state.next_at, now) + (weight - 1) * interval(rate) - tolerance(allowed, weight) - now
    return max(0.0, ahead if ahead > EPSILON else 0.0, _window_wait(state, rate, weight, now))


def _window_wait(state: LimitState, rate: Rate, weight: int, now: float) -> float:
    excess = sum(units for _, units in state.grants) + weight - rate.count
    if excess <= 0:
        return 0.0
    for at, units in state.grants:
        excess -= units
        if excess <= 0:
            return max(EPSILON, at + window(rate) - now)
    return window(rate)


def grant_rate(state: LimitState, allowed: Allowance, weight: int, now: float) -> LimitState:
    """The state after a start of this weight was granted, which must be allowed."""
    rate = allowed.rate
    if rate is None:
        return state
    weight = min(weight, rate.count)
    next_at = max(state.next_at, now) + weight * interval(rate)
    return state._replace(next_at=next_at, grants=_recorded(state.grants, rate, weight, now))


def _recorded(
    grants: tuple[tuple[float, int], ...], rate: Rate, weight: int, now: float
) -> tuple[tuple[float, int], ...]:
    if grants and _bucket(grants[-1][0], rate) == _bucket(now, rate):
        # Under the later of the two times, which can only make the limit stricter.
        return (*grants[:-1], (now, grants[-1][1] + weight))
    return (*grants, (now, weight))


def _bucket(at: float, rate: Rate) -> float:
    return math.floor(at * BUCKETS / window(rate)) if rate.count > BUCKETS else at


def book(state: LimitState, allowed: Allowance, weight: int, wait: float, now: float) -> tuple[LimitState, float]:
    """When somebody who has to wait should come back: behind the others who were told so.  Returns the state and the seconds.

    Beyond :data:`HORIZON` nothing is booked, so that a limit that is changed has its effect.
    """
    moment = max(state.booked_until, now + wait)
    if allowed.rate is None or moment > now + HORIZON:
        return state, HORIZON
    return state._replace(booked_until=moment + weight * interval(allowed.rate)), moment - now


def take_back(state: LimitState, allowed: Allowance, weight: int, at: float) -> LimitState:
    """The state without a grant that was not used.  One that is not recorded under this time any more is left to run out."""
    rate = allowed.rate
    if rate is None:
        return state
    weight = min(weight, rate.count)
    kept, found = [], False
    for when, units in state.grants:
        if when == at and units >= weight and not found:
            found = True
            if units > weight:
                kept.append((when, units - weight))
        else:
            kept.append((when, units))
    if not found:
        return state
    return state._replace(next_at=state.next_at - weight * interval(rate), grants=tuple(kept))


# -- how many at once --------------------------------------------------------------------------------------------------


def is_free(state: LimitState, allowed: Allowance, weight: int) -> bool:
    """Whether one more of this weight may run at once."""
    most = allowed.concurrency
    return most is None or units_held(state) + min(weight, most) <= most


def units_held(state: LimitState) -> int:
    """The weight of all that runs."""
    return sum(sum(permits.values()) for permits in state.held.values())


def hold(state: LimitState, allowed: Allowance, owner: str, permit: str, weight: int) -> LimitState:
    """The state with one more permit; the same when it is there already."""
    if allowed.concurrency is None:
        return state
    own = {**state.held.get(owner, {}), permit: min(weight, allowed.concurrency)}
    return state._replace(held={**state.held, owner: own})


def free(state: LimitState, owner: str, permits: Collection[str]) -> LimitState:
    """The state without these permits of an owner."""
    own = {name: weight for name, weight in state.held.get(owner, {}).items() if name not in permits}
    held = {name: kept for name, kept in state.held.items() if name != owner}
    return state._replace(held={**held, owner: own} if own else held)


def without(state: LimitState, owners: Collection[str]) -> LimitState:
    """The state without owners that are gone."""
    return state._replace(held={name: permits for name, permits in state.held.items() if name not in owners})


def lifetime(state: LimitState, allowed: Allowance) -> float | None:
    """Seconds for which the state must be kept when nobody changes it; ``None``: it says nothing."""
    if state.held:
        return HELD_SECONDS
    return window(allowed.rate) + SPARE_SECONDS if allowed.rate and state.grants else None


HELD_SECONDS = 30 * 86_400.0
"""Permits go with their owners; this only bounds what is kept of a key that nobody asks for again."""

SPARE_SECONDS = 60.0


def as_dict(allowed: Allowance) -> dict[str, Any]:
    """An allowance as it is stored."""
    rate = None if allowed.rate is None else [allowed.rate.count, allowed.rate.period]
    return {"rate": rate, "burst": allowed.burst, "concurrency": allowed.concurrency}


def from_dict(stored: Mapping[str, Any]) -> Allowance:
    """A stored allowance."""
    rate = stored.get("rate")
    return Allowance(
        None if rate is None else Rate(int(rate[0]), float(rate[1])), stored["burst"], stored["concurrency"]
    )
