"""Lets limited messages out of their lanes, as many as their limits allow, into one slot that can start them at once.

A worker that leases a limited message from its queue puts it into a lane beside the queue and goes on: it holds nothing, and
nobody waits behind it.  A slot that has room looks at some lanes, takes what their limits allow from the shared state (compare and
set), leases as many messages from the lanes, and starts them before anything else.  So all its work is between slot and store; nobody
leads.

What can be cut short, and what comes of it:

- after the permits are taken, before the messages are leased: a rate's grants run out unused; permits to run belong to an owner, and
  are void when it is condemned or gone.
- after the messages are leased: they are rescued like any others, and go through their lane again.
- after the run, before its permit is given back: as the first.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from celeriac.broker import Broker, Lane
from celeriac.errors import StoreError
from celeriac.keyvalue import ABSENT, Change, Entry, KeyValueStore
from celeriac.message import Delivery
from celeriac.policies.dealing import Deal, Dealing, Taker, state_name
from celeriac.policies.lane import Claim, claims_of
from celeriac.policies.limit import Allowance
from celeriac.policies.limit_book import BOOK, SPACE, LimitBook
from celeriac.policies.limit_state import (
    LimitState,
    book,
    decode,
    free,
    grant_rate,
    guard,
    is_astray,
    is_free,
    lifetime,
    settled,
    take_back,
    wait_for_rate,
    without,
)
from celeriac.policies.limit_state import hold as take_hold

logger = logging.getLogger("celeriac.limits")

LANES_AT_ONCE = 50
"""Lanes that one look considers, chosen at random.  More make a look slower; fewer need more looks to find one that may run."""

EMPTY_SECONDS = 1.0
"""Seconds between looks while nothing is parked: how long it takes until a slot helps with what others parked."""

LONGEST_WAIT = 1.0
"""Seconds between looks while nothing is allowed: how long it takes until a limit that was changed has its effect."""

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Seconds between looks while others run all that may run at once.  Whoever of them ends looks at once, so this is for the rest."""

ALIVE_SECONDS = 0.5
"""Seconds between two checks whether those who hold permits are alive."""

SPARING, LONGEST_SPARING = 8.0, 0.05
"""While something is only a matter of time, a slot waits so many times as long as its looks take (in seconds: no longer than this)
beyond the moment of the next start, so that it takes several in one look.  Longer saves round trips, and costs some of the rate
when all slots happen to wait at once.
"""

LOST_RACE = 0.01
"""Seconds within which somebody who was not the first to take what is allowed tries again."""

REFUSED_SECONDS = (0.2, 1.0)
"""On brokers without lanes: seconds after which a message is tried again while others run all that may run at once."""

FOREVER = float("inf")


@dataclass(slots=True, eq=False)
class Hold:
    """A permit to run, which several messages may use one after another."""

    name: str
    claims: tuple[Claim, ...]
    users: int = 0


@dataclass(slots=True, eq=False)
class Permit:
    """What lets one message run.  It starts before ``start_by`` (monotonic clock), or needs a new grant."""

    gate: Gate
    lane: str
    claims: tuple[Claim, ...]
    granted_at: dict[str, float]
    """By the name of the state: the store's time."""
    start_by: float
    hold: Hold
    together: list[Permit] = field(default_factory=list)
    """All that were granted with it and run after one another: they are renewed together."""
    started: bool = False
    ended: bool = False
    wait: float = 0.0
    """Where it may not start: seconds until it may, as far as that is known."""
    blocked_by: dict[str, object] = field(default_factory=dict)
    """Owners that run all that may run at once."""

    def may_start(self) -> bool:
        """Whether the body may start now; otherwise the message goes back to its lane."""
        self.started = time.monotonic() <= self.start_by or self.gate.renew(self)
        return self.started

    def end(self) -> None:
        """The message has run, or will not."""
        self.gate.ended(self)


@dataclass(slots=True)
class Debts:
    """What is to be given back of one state."""

    claim: Claim
    grants: list[tuple[int, float]] = field(default_factory=list)
    """Weights, and when they were granted."""
    holds: set[str] = field(default_factory=set)


class Gate:
    """Lets messages into one slot."""

    def __init__(self, owner: str, broker: Broker, store: KeyValueStore, book: LimitBook, *, sequential: bool) -> None:
        """``sequential``: the slot runs one message at a time."""
        self._owner = owner
        self._broker = broker
        self._store = store
        self._book = book
        serials = count(1)
        self._taker = Taker(owner, lambda: str(next(serials)), sequential)
        self._holds: dict[str, Hold] = {}
        self._debts: dict[str, Debts] = {}
        self._lock = threading.Lock()
        self._look_at = 0.0
        self._pause = FIRST_PAUSE
        self._look_seconds = 0.0
        self._checked_at = 0.0

    # -- when ------------------------------------------------------------------------------------------------------

    def rest(self) -> float:
        """Seconds until there is a reason to look at the lanes."""
        return max(0.0, self._look_at - time.monotonic())

    def look_now(self) -> None:
        """There is a reason: something was parked here, or a permit has become free."""
        self._look_at, self._pause = 0.0, FIRST_PAUSE

    def _look_in(self, seconds: float) -> None:
        self._look_at = time.monotonic() + min(seconds, LONGEST_WAIT)

    # -- in --------------------------------------------------------------------------------------------------------

    def lease(self, queues: Sequence[str], room: int) -> list[tuple[Delivery, Permit]]:
        """Lease as many messages from the lanes of these queues as may start now, up to ``room``.

        Raises:
            OwnerLost: as :meth:`Broker.lease` does.
            StoreUnavailable, StoreFull: what was taken meanwhile comes back by itself.
        """
        self._pay()
        lanes = self._broker.lanes(queues, LANES_AT_ONCE)
        if not lanes:
            self._look_in(EMPTY_SECONDS * random.uniform(0.5, 1.0))
            return []
        random.shuffle(lanes)
        asked = time.monotonic()
        names = sorted({state_name(claim) for lane in lanes for claim in claims_of(lane.name)})
        now, (book, *entries) = self._store.read(SPACE, [BOOK, *names])
        self._book.read(book.value if book else None)
        found = dict(zip(names, entries, strict=True))
        states = {name: decode(entry.value) for name, entry in found.items() if entry}
        dealing = Dealing(now, states, self._book.allowed, self._taker)
        with self._lock:
            dealing.forget_own(set(self._holds))
        deals = dealing.deal(lanes, room)
        lost = self._write(dealing, found)
        admitted = self._take([deal for deal in deals if not self._is_void(deal, lost)], dealing, asked)
        for deal in deals:
            if self._is_void(deal, lost):
                self._owe_deal(deal, dealing.now, lost)
        if len(lanes) >= LANES_AT_ONCE:  # there may be others, which may be let in
            dealing.wait = min(dealing.wait, 0.0 if admitted else self._next_pause())
        self._look_seconds += 0.2 * (time.monotonic() - asked - self._look_seconds)
        self._plan_next(dealing, lost, admitted=bool(admitted))
        return admitted

    def _write(self, dealing: Dealing, found: dict[str, Entry | None]) -> set[str]:
        """Write the changed states; return those that somebody else has changed in between."""
        lost = set()
        for name in sorted(dealing.changed):
            entry = found.get(name)
            version = entry.version if entry else ABSENT
            if not self._put(name, dealing.states[name], version):
                lost.add(name)
        return lost

    def _put(self, name: str, state: LimitState, version: int) -> bool:
        ttl = lifetime(state, self._book.allowed(_limit_of(name)))
        value = None if ttl is None else state.encode()
        return bool(self._store.write(SPACE, name, value, ttl=ttl, version=version))

    @staticmethod
    def _is_void(deal: Deal, lost: Collection[str]) -> bool:
        return any(state_name(claim) in lost for claim in deal.claims)

    def _take(self, deals: list[Deal], dealing: Dealing, asked: float) -> list[tuple[Delivery, Permit]]:
        """Lease what was granted; what is not there any more is given back."""
        if not deals:
            return []
        holds = {id(deal): [Hold(name, deal.claims) for name in deal.holds] for deal in deals}
        with self._lock:
            self._holds.update({hold.name: hold for each in holds.values() for hold in each})
        wanted = [Lane(deal.lane.queue, deal.lane.name, deal.count) for deal in deals]
        try:
            leased = self._broker.unpark(self._owner, wanted)
        except BaseException:
            for deal in deals:
                self._owe_deal(deal, dealing.now, ())
            raise
        admitted = []
        for deal, deliveries in zip(deals, leased, strict=True):
            permits = [self._permit(deal, holds[id(deal)], n, dealing.now, asked) for n in range(deal.count)]
            for permit in permits if self._taker.sequential else ():
                permit.together = permits
            admitted += list(zip(deliveries, permits, strict=False))
            for unused in permits[len(deliveries) :]:
                self.ended(unused, at_once=False)
        return admitted

    def _permit(self, deal: Deal, holds: list[Hold], place: int, now: float, asked: float) -> Permit:
        hold = holds[0] if self._taker.sequential else holds[place]
        hold.users += 1
        granted = {state_name(claim): now for claim in deal.claims}
        return Permit(self, deal.lane.name, deal.claims, granted, asked + self._within(deal.claims), hold)

    def _within(self, claims: Collection[Claim]) -> float:
        """Seconds after a grant within which the body must start."""
        rates = [rate for claim in claims if (rate := self._book.allowed(claim.limit).rate) is not None]
        return min((guard(rate) for rate in rates), default=FOREVER)

    def _plan_next(self, dealing: Dealing, lost: Collection[str], *, admitted: bool) -> None:
        if lost:
            self._look_in(random.uniform(0, LOST_RACE))
            return
        if admitted:
            self._pause = FIRST_PAUSE
        wait = dealing.wait + (min(SPARING * self._look_seconds, LONGEST_SPARING) if dealing.wait > 0 else 0.0)
        if dealing.blocked and not admitted:
            holders = {owner for name in dealing.blocked for owner in dealing.states[name].held}
            self._bury_the_dead(dealing.blocked, holders)
            wait = min(wait, self._next_pause())
        self._look_in(wait)

    def _next_pause(self) -> float:
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _bury_the_dead(self, names: Collection[str], holders: Collection[str]) -> None:
        """Give up permits of owners that are gone."""
        if time.monotonic() - self._checked_at < ALIVE_SECONDS:
            return
        self._checked_at = time.monotonic()
        others = sorted(set(holders) - {self._owner})
        gone = set(others) - self._broker.alive(others)
        for name in names if gone else ():
            self._update(name, lambda state, _now: without(state, gone))
            self.look_now()

    # -- while they wait -------------------------------------------------------------------------------------------

    def apply(self, claims: tuple[Claim, ...]) -> Permit:
        """A permit without any grants yet: for messages that did not come from a lane."""
        hold = Hold(self._taker.new_permit(), claims, 1)
        with self._lock:
            self._holds[hold.name] = hold
        return Permit(self, "", claims, {}, -FOREVER, hold)

    def renew(self, permit: Permit) -> bool:
        """Exchange a permit's grants, which are too old to start under or not there, for new ones; and those of the permits that
        were granted with it, as far as the limits allow.
        """
        asked = time.monotonic()
        with self._lock:
            others = [each for each in permit.together if each is not permit and not (each.started or each.ended)]
        wanted = [permit, *others]
        try:
            if not permit.lane:
                self._read_book()
            for claim in permit.claims:
                wanted = self._renew_under(claim, wanted)
                if not wanted:
                    return False
        except StoreError as error:
            logger.debug("A grant could not be renewed: %s", error)
            return False
        start_by = asked + self._within(permit.claims)
        for each in wanted:
            each.start_by = start_by
        return True

    def _read_book(self) -> None:
        """Notice changed limits, once in a while, where no looks at lanes do so."""
        if time.monotonic() >= self._look_at:
            self._look_in(LONGEST_WAIT)
            self._book.load(self._store)

    def _renew_under(self, claim: Claim, permits: list[Permit]) -> list[Permit]:
        """Renew under one limit; return the permits that have a grant now, the first ones first."""
        allowed, name, first = self._book.allowed(claim.limit), state_name(claim), permits[0]
        if allowed.rate and not first.lane:  # nobody can take several at a time, so there is nothing to spread
            allowed = allowed._replace(burst=allowed.rate.count)
        olds = [old for each in permits if (old := each.granted_at.pop(name, None)) is not None]
        answer: list[float] = []

        def change(state: LimitState, now: float) -> LimitState:
            answer.clear()
            first.blocked_by = {}
            for old in olds:
                state = take_back(state, allowed, claim.weight, old)
            if first.hold.name not in state.held.get(self._owner, {}):
                if not is_free(state, allowed, claim.weight):
                    first.blocked_by, first.wait = dict(state.held), random.uniform(*REFUSED_SECONDS)
                    return state
                state = take_hold(state, allowed, self._owner, first.hold.name, claim.weight)
            state, granted = _granted(state, allowed, claim.weight, permits, now)
            answer.extend([now] * granted)
            return state

        self._update(name, change)
        renewed = permits[: len(answer)]
        for each in renewed:
            each.granted_at[name] = answer[0]
        if first.blocked_by:
            self._bury_the_dead({name}, set(first.blocked_by))
        return renewed

    # -- out -------------------------------------------------------------------------------------------------------

    def ended(self, permit: Permit, *, at_once: bool = True) -> None:
        """A permit is not needed any more, from any thread.  What was not used of it is given back."""
        with self._lock:
            if permit.ended:
                return
            permit.ended = True
            hold = permit.hold
            hold.users -= 1
            if not permit.started:
                for claim in permit.claims:
                    self._owe(claim, granted_at=permit.granted_at.get(state_name(claim)))
            if hold.users == 0:
                self._holds.pop(hold.name, None)
                for claim in hold.claims:
                    if self._book.allowed(claim.limit).concurrency is not None:
                        self._owe(claim, hold=hold.name)
            pays = at_once and hold.users == 0
        if pays:
            self._pay_if_possible()
        self.look_now()

    def _owe(self, claim: Claim, granted_at: float | None = None, hold: str | None = None) -> None:
        debts = self._debts.setdefault(state_name(claim), Debts(claim))
        if granted_at is not None:
            debts.grants.append((claim.weight, granted_at))
        if hold is not None:
            debts.holds.add(hold)

    def _owe_deal(self, deal: Deal, now: float, unwritten: Collection[str]) -> None:
        with self._lock:
            for name in deal.holds:
                self._holds.pop(name, None)
            for claim in deal.claims:
                if state_name(claim) in unwritten:
                    continue
                for _ in range(deal.count):
                    self._owe(claim, granted_at=now)
                for name in deal.holds:
                    self._owe(claim, hold=name)

    def _pay_if_possible(self) -> None:
        try:
            self._pay()
        except StoreError as error:
            logger.debug("Permits are given back later: %s", error)

    def _pay(self) -> None:
        """Give back what is owed."""
        with self._lock:
            debts, self._debts = self._debts, {}
        while debts:
            name, owed = debts.popitem()
            try:
                self._update(name, lambda state, _now, owed=owed: self._without(state, owed))  # type: ignore[misc]
            except BaseException:
                with self._lock:
                    for other, left in {**debts, name: owed}.items():
                        mine = self._debts.setdefault(other, Debts(left.claim))
                        mine.grants += left.grants
                        mine.holds |= left.holds
                raise

    def _without(self, state: LimitState, owed: Debts) -> LimitState:
        allowed = self._book.allowed(owed.claim.limit)
        for weight, at in owed.grants:
            state = take_back(state, allowed, weight, at)
        return free(state, self._owner, owed.holds) if owed.holds else state

    def _update(self, name: str, change: Callable[[LimitState, float], LimitState]) -> None:
        allowed = self._book.allowed(_limit_of(name))

        def of_bytes(raw: bytes | None, now: float) -> Change[None]:
            stored = decode(raw)
            old = settled(stored, allowed, now)
            new = change(old, now)
            if new == old and not is_astray(stored, allowed, now):
                return Change(None, keep=True)
            ttl = lifetime(new, allowed)
            return Change(None, None if ttl is None else new.encode(), ttl)

        self._store.update(SPACE, name, of_bytes)


def _granted(
    state: LimitState, allowed: Allowance, weight: int, permits: Sequence[Permit], now: float
) -> tuple[LimitState, int]:
    """The state with grants for as many permits as it allows, and how many these are.  The first permit gets to know its wait."""
    for number, _ in enumerate(permits):
        permits[0].wait = wait_for_rate(state, allowed, weight, now)
        if permits[0].wait > 0:
            if not permits[0].lane:
                state, permits[0].wait = book(state, allowed, weight, permits[0].wait, now)
            return state, number
        state = grant_rate(state, allowed, weight, now)
    return state, len(permits)


def _limit_of(name: str) -> str:
    return name.removeprefix("state:").partition("\x1f")[0]
