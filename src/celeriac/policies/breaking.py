"""A circuit breaker in a worker: one state in the store, looked at by all, with a glance of this process's own at most a second old."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from celeriac.errors import StoreError
from celeriac.keyvalue import ABSENT, Change, KeyValueStore, Namespace
from celeriac.outcome import DeadReason, Outcome, State
from celeriac.policies.circuit_breaker import (
    Admission,
    Breaker,
    CircuitOpen,
    Status,
    Tally,
    WhenOpen,
    admit,
    ended,
    with_clock,
)
from celeriac.policies.circuit_breaker import State as BreakerState
from celeriac.policy import Call, Policy, Postpone, Refuse, Verdict

logger = logging.getLogger("celeriac.policies")

SPACE = Namespace("breakers", listed=True)

GLANCE_SECONDS = 1.0
"""How old a process's knowledge of a closed or open breaker may be: so long may runs begin after another process opened it."""

CLOCK_SECONDS = 10.0
"""How long a process counts on from a time that the store told it, before it asks again: so late it notices that the clock was set."""

KEPT_SECONDS = 7 * 86_400.0
"""How long a state is kept that nobody changes."""


BreakerChange = Callable[[BreakerState, float], tuple[BreakerState, "Admission | None"]]


class Shared:
    """One breaker's state in the store, as this process knows it.  For several threads."""

    def __init__(self, breaker: Breaker, store: Callable[[], KeyValueStore]) -> None:
        self.breaker = breaker
        self._store = store
        self._lock = threading.Lock()
        self._known: BreakerState | None = None
        self._version: int | None = None
        """Of the entry that ``_known`` was read from or written to, where that is known."""
        self._at = 0.0
        """Monotonic time of the last look at the store."""
        self._clock = 0.0
        """The store's time then, as it was told or counted on."""
        self._told_at = 0.0
        """Monotonic time at which the store told its own."""
        self._successes = 0

    def look(self) -> tuple[BreakerState, float]:
        """The state and the store's time, as far as this process knows.

        Raises:
            StoreUnavailable: the store is away and was never there.
        """
        with self._lock:
            stale = self._known is None or time.monotonic() - self._at > GLANCE_SECONDS
            if stale:
                # The other threads go on with what is known.
                self._at, before = time.monotonic(), self._at
                self._clock += self._at - before
            known = self._known
        if stale or known is None:
            try:
                known = self._renewed()
            except StoreError as error:
                if known is None:
                    self._at = before
                    raise
                logger.warning("Circuit breaker %s: %s; going by what was known", self.breaker.name, error)
        return known, self._clock + time.monotonic() - self._at

    def _renewed(self) -> BreakerState:
        if self._successes:
            return self._record(Tally(), None)
        now, (entry,) = self._store().read(SPACE, [self.breaker.name])
        version = entry.version if entry else ABSENT
        return self._learn(BreakerState.decode(entry.value if entry else None), now, version)

    def succeeded(self) -> None:
        """Count a success of a closed breaker; written with the next look or the next failure.  Only a rate needs it."""
        if self.breaker.rate is not None:
            with self._lock:
                self._successes += 1

    def record(self, tally: Tally, probe: str | None) -> None:
        """Write how a run ended: one round trip, unless somebody else has written meanwhile."""
        self._record(tally, probe)

    def _record(self, tally: Tally, probe: str | None) -> BreakerState:
        with self._lock:
            successes, self._successes = self._successes, 0
        whole = tally if probe else tally._replace(successes=tally.successes + successes)
        return self._change(lambda state, now: (ended(self.breaker, state, now, whole, probe), None))[0]

    def admit(self, holder: str) -> Admission:
        """Ask the store for a run, as :meth:`record` does."""
        _, admission = self._change(lambda state, now: admit(self.breaker, state, now, holder))
        assert admission is not None
        return admission

    def _change(self, change: BreakerChange) -> tuple[BreakerState, Admission | None]:
        def update(old: bytes | None, now: float) -> Change[tuple[BreakerState, BreakerState, Admission | None, float]]:
            before = BreakerState.decode(old)
            after, admission = change(before, now)
            answer = (before, after, admission, now)
            return Change(answer, after.encode(), _lifetime(after), keep=after == before)

        found = self._change_what_is_known(change)
        if found is None:
            before, after, admission, now = self._store().update(SPACE, self.breaker.name, update)
            self._learn(after, now, None)
        else:
            before, after, admission = found
        if after.status is not before.status:
            tell(self.breaker.name, after)
        return after, admission

    def _change_what_is_known(
        self, change: BreakerChange
    ) -> tuple[BreakerState, BreakerState, Admission | None] | None:
        """Change the state without reading it first: for nothing, and ``None``, where somebody has written since it was read."""
        with self._lock:
            before, version, told_at = self._known, self._version, self._told_at
            now = self._clock + time.monotonic() - self._at
        if before is None or version is None or time.monotonic() - told_at > CLOCK_SECONDS:
            return None
        after, admission = change(before, now)
        if after == before:  # what is known may be old, and then it would be changed
            return None
        written = self._store().write(SPACE, self.breaker.name, after.encode(), ttl=_lifetime(after), version=version)
        if not written:
            return None
        self._learn(after, now, written, told_at)
        return before, after, admission

    def _learn(
        self, state: BreakerState, now: float, version: int | None, told_at: float | None = None
    ) -> BreakerState:
        with self._lock:
            self._known, self._version, self._at, self._clock = state, version, time.monotonic(), now
            self._told_at = self._at if told_at is None else told_at
        return state


def _lifetime(state: BreakerState) -> float | None:
    return None if state.status is Status.OPEN and state.until is None else KEPT_SECONDS


def tell(name: str, state: BreakerState) -> None:
    """Log what a breaker has become."""
    if state.status is Status.OPEN:
        length = "until it is closed" if state.until is None else f"for {state.until - state.since:g} s"
        logger.warning("Circuit breaker %s opens %s: %s", name, length, state.reason)
    elif state.status is Status.HALF_OPEN:
        logger.info("Circuit breaker %s lets probes through", name)
    else:
        logger.warning("Circuit breaker %s closes: what it protects works again", name)


class CircuitBreaker(Policy):
    """The policy of one task.

    Args:
        breaker: how it behaves.
        store: opens the key-value store of this process.
        cause: the exception behind one that a body raised; ``None`` when it says nothing about what the breaker protects.
        time_limit: makes the exception of a hard time limit.
    """

    def __init__(
        self,
        breaker: Breaker,
        store: Callable[[], KeyValueStore],
        cause: Callable[[BaseException], BaseException | None],
        time_limit: Callable[[], BaseException],
    ) -> None:
        self._breaker = breaker
        self._shared = Shared(breaker, store)
        self._cause = cause
        self._time_limit = time_limit

    def enter(self, call: Call) -> Verdict | None:
        """See :class:`Policy`: a round trip a second while closed or open, and one when it may be time for a probe."""
        state, now = self._shared.look()
        if state.status is Status.CLOSED:
            return None
        waits = state.status is Status.OPEN and (state.until is None or now < state.until)
        if waits and with_clock(state, now) is state:
            wait = self._breaker.cooldown if state.until is None else state.until - now
            return self._ruling(Admission(allowed=False, wait=wait), state.reason)
        admission = self._shared.admit(call.task_id)
        if not admission.allowed:
            return self._ruling(admission, state.reason)
        if admission.probe:
            call.notes["probe"] = call.task_id
        return None

    def _ruling(self, admission: Admission, reason: str) -> Verdict:
        text = f"circuit breaker {self._breaker.name} is open" + (f" ({reason})" if reason else "")
        if self._breaker.when_open == WhenOpen.PARK.value:
            return Postpone(admission.wait + random.uniform(0, self._breaker.spread), text)
        dead_letter = self._breaker.when_open == WhenOpen.DEAD_LETTER.value
        return Refuse(DeadReason.BREAKER, CircuitOpen(text), dead_letter)

    def leave(self, call: Call, outcome: Outcome, error: BaseException | None) -> Outcome:
        """See :class:`Policy`.  What a store that is away does not take is not counted."""
        probe = call.notes.pop("probe", None)
        cause = None if error is None else self._cause(error)
        if cause is not None and self._breaker.counts(cause):
            self._record(Tally(failures=1, reason=f"{type(cause).__name__}: {cause}"), probe)
        elif error is None and outcome.state is State.SUCCEEDED:
            if probe is not None:
                self._record(Tally(successes=1), probe)
            else:
                self._shared.succeeded()
        elif probe is not None:
            # It said nothing about what is protected; another may probe.
            self._record(Tally(), probe)
        return outcome

    def abandon(self, call: Call, outcome: Outcome) -> Outcome:
        """See :class:`Policy`.  A run that was killed at its time limit is a failure; any other gives its place as a probe up."""
        limit = self._time_limit()
        timed_out = outcome.dead is not None and outcome.dead.reason == DeadReason.TIME_LIMIT.value
        if timed_out and self._breaker.counts(limit):
            state, _ = self._shared.look()
            probe = call.task_id if state.status is Status.HALF_OPEN else None
            self._record(Tally(failures=1, reason=outcome.dead.error if outcome.dead else ""), probe)
        elif self._shared.look()[0].status is Status.HALF_OPEN:
            self._record(Tally(), call.task_id)
        return outcome

    def _record(self, tally: Tally, probe: str | None) -> None:
        try:
            self._shared.record(tally, probe)
        except StoreError as error:
            logger.warning("Circuit breaker %s could not count a run: %s", self._breaker.name, error)


def force(store: KeyValueStore, name: str, state: BreakerState) -> None:
    """Write a breaker's state, whatever it was, for a person."""

    def update(old: bytes | None, now: float) -> Change[None]:
        before = BreakerState.decode(old)
        made = replace(state, since=now, seen=now, openings=before.openings + (state.status is Status.OPEN))
        return Change(None, made.encode(), None if state.status is Status.OPEN else KEPT_SECONDS)

    store.update(SPACE, name, update)


def read_all(store: KeyValueStore, names: list[str]) -> tuple[float, dict[str, BreakerState]]:
    """The store's time, and the states of these breakers and of all that the store knows."""
    wanted = sorted({*names, *store.names(SPACE)})
    now, found = store.read(SPACE, wanted)
    states = {
        name: with_clock(BreakerState.decode(entry.value if entry else None), now)
        for name, entry in zip(wanted, found, strict=True)
    }
    return now, states
