"""Deals what limits allow at one moment to the lanes that wait for it, each in turn.  Pure: what was read goes in, what is to be
written comes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from celeriac.broker import Lane
from celeriac.policies.lane import Claim, claims_of
from celeriac.policies.limit import Allowance
from celeriac.policies.limit_state import (
    LimitState,
    free,
    grant_rate,
    hold,
    is_astray,
    is_free,
    settled,
    wait_for_rate,
)


def state_name(claim: Claim) -> str:
    """The key of a limit's state."""
    return f"state:{claim.limit}\x1f{claim.key}"


@dataclass(slots=True)
class Deal:
    """What one lane gets."""

    lane: Lane
    claims: tuple[Claim, ...]
    count: int = 0
    holds: list[str] = field(default_factory=list)
    """Names of the permits that its messages run under: one for all where they run one after another, else one for each."""


class Taker(NamedTuple):
    """Who looks."""

    owner: str
    new_permit: Callable[[], str]
    """Makes names of permits."""
    sequential: bool
    """Whether what is dealt runs one after another, so that one permit for each lane is enough."""


class Dealing:
    """One look at some lanes."""

    def __init__(
        self, now: float, states: Mapping[str, LimitState], allowed: Callable[[str], Allowance], taker: Taker
    ) -> None:
        """``now`` is the store's time."""
        self.now = now
        self.states = dict(states)
        self.changed: set[str] = set()
        self.wait = float("inf")
        """Seconds until something more is allowed, as far as it is only a matter of time."""
        self.blocked: set[str] = set()
        """States in which others run all that may run at once."""
        self._allowed = allowed
        self._taker = taker
        self._settled: set[str] = set()

    def deal(self, lanes: Sequence[Lane], room: int) -> list[Deal]:
        """Give each lane one message in turn, until there is no room or nothing more is allowed."""
        deals = [Deal(lane, claims_of(lane.name)) for lane in lanes]
        waiting = deque(deals)
        while waiting and room > 0:
            deal = waiting.popleft()
            if deal.count < deal.lane.count and self._grant(deal):
                room -= 1
                waiting.append(deal)
        if any(deal.count < deal.lane.count for deal in waiting):
            self.wait = 0.0
        return [deal for deal in deals if deal.count]

    def _grant(self, deal: Deal) -> bool:
        needs_hold = not (self._taker.sequential and deal.holds)
        fits = [self._fits(claim, needs_hold=needs_hold) for claim in deal.claims]
        if not all(fits):
            return False
        permit = self._taker.new_permit() if needs_hold else deal.holds[0]
        for claim in deal.claims:
            self._apply(claim, permit)
        deal.count += 1
        if needs_hold:
            deal.holds.append(permit)
        return True

    def _fits(self, claim: Claim, *, needs_hold: bool) -> bool:
        allowed, state = self._allowed(claim.limit), self._state(claim)
        if needs_hold and not is_free(state, allowed, claim.weight):
            self.blocked.add(state_name(claim))
            return False
        wait = wait_for_rate(state, allowed, claim.weight, self.now)
        if wait > 0:
            self.wait = min(self.wait, wait)
        return wait == 0

    def _state(self, claim: Claim) -> LimitState:
        name = state_name(claim)
        if name not in self._settled:
            self._settled.add(name)
            state, allowed = self.states.get(name, LimitState()), self._allowed(claim.limit)
            if is_astray(state, allowed, self.now):
                self.changed.add(name)
            self.states[name] = settled(state, allowed, self.now)
        return self.states[name]

    def _apply(self, claim: Claim, permit: str) -> None:
        name, allowed = state_name(claim), self._allowed(claim.limit)
        state = grant_rate(self.states[name], allowed, claim.weight, self.now)
        state = hold(state, allowed, self._taker.owner, permit, claim.weight)
        if state is not self.states[name]:
            self.states[name] = state
            self.changed.add(name)

    def forget_own(self, known: set[str]) -> None:
        """Give up this owner's permits that it knows nothing of: a call of unknown fate took them."""
        for name, state in self.states.items():
            unknown = set(state.held.get(self._taker.owner, {})) - known
            if unknown:
                self.states[name] = free(state, self._taker.owner, unknown)
                self.changed.add(name)
