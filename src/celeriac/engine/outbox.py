"""Finished work on its way into the store: outcomes are collected here and settled in batches."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.engine.ledger import Ledger
from celeriac.engine.runner import Runner
from celeriac.errors import OwnerLost, StoreFull, StoreUnavailable
from celeriac.keyvalue import KeyValueStore
from celeriac.message import Delivery
from celeriac.outcome import Outcome, ReadyChord, Settlement
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import LeaseFenced

logger = logging.getLogger("celeriac.engine")

PASSING = (OwnerLost, StoreUnavailable, StoreFull)
"""Errors that say nothing about the outcomes.  Any other may come from what is in one of them, a driver's encoding errors
among them, and would come again for ever.
"""


class Settler:
    """Writes outcomes: in one transaction where broker and results share a store, results first where they do not."""

    def __init__(
        self,
        broker: Broker,
        backend: Backend | None,
        runner: Runner,
        make_key_values: Callable[[], KeyValueStore] | None = None,
    ) -> None:
        """``make_key_values``: opens the store of what policies share; called when an outcome first needs it."""
        self._make_key_values = make_key_values
        self._broker = broker
        self._backend = backend
        self._runner = runner
        self._shared = broker.shares_store(backend)

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """Settle everything that these outcomes say, chords' callbacks included, and lease."""
        outcomes = self._write_keys(outcomes)
        if outcomes and not self._shared:
            outcomes = self._store_apart(outcomes)
        settlement, leased = self._broker.turn(owner, outcomes, queues, limit)
        self._complete_chords(settlement, lambda completed: self._broker.settle(owner, completed))
        if not self._shared:
            self._forget_chords(outcomes)
        return settlement, leased

    def rescue(self, owner: str, outcomes: Sequence[Outcome]) -> None:
        """Settle on behalf of an owner that is gone.  What the store refuses for good is dead-lettered."""
        try:
            self.settle_condemned(owner, outcomes)
        except PASSING:
            raise
        except Exception as error:
            logger.warning("The store refused a batch of %d outcomes (%s); settling one by one", len(outcomes), error)
            for outcome in outcomes:
                self._rescue_alone(owner, outcome)

    def _rescue_alone(self, owner: str, outcome: Outcome) -> None:
        try:
            self.settle_condemned(owner, [outcome])
        except PASSING:
            raise
        except Exception as error:
            self.dead_letter(outcome, error, lambda instead: self.settle_condemned(owner, [instead]))

    def dead_letter(self, outcome: Outcome, error: Exception, settle: Callable[[Outcome], object]) -> None:
        """Settle an outcome that the store refuses for good as a failure; when it does not take that either, without a result."""
        instead = self._runner.unsettleable(outcome, error)
        try:
            settle(instead)
        except PASSING:
            raise
        except Exception:
            settle(Outcome(outcome.delivery, instead.state, dead=instead.dead, keys=instead.keys))

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """Settle everything that these outcomes say on behalf of an owner that is gone."""
        outcomes = self._write_keys(outcomes)
        if outcomes and not self._shared:
            outcomes = self._store_apart(outcomes)
        settlement = self._broker.settle_condemned(owner, outcomes)
        self._complete_chords(settlement, lambda completed: self._broker.settle_condemned(owner, completed))
        if not self._shared:
            self._forget_chords(outcomes)
        return settlement

    def _complete_chords(self, settlement: Settlement, settle: Callable[[list[Outcome]], Settlement]) -> None:
        """Publish callbacks of chords; one that fails may complete the chord around it, so until there are no more."""
        while settlement.ready:
            completed: dict[int, Outcome] = {}
            for chord in settlement.ready:
                tag = chord.outcome.delivery.tag
                completed[tag] = self._complete(ReadyChord(completed.get(tag, chord.outcome), chord.part))
            settlement = settle(list(completed.values()))

    def _complete(self, chord: ReadyChord) -> Outcome:
        assert self._backend is not None
        return self._runner.complete_chord(chord, self._backend.chord_parts(chord.part.group_id))

    def _write_keys(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Keys first, where the broker does not write them: whoever repeats the rest of the settle finds them written, and a
        result that is stored means that they are.
        """
        if not any(outcome.keys for outcome in outcomes) or self._make_key_values is None:
            return outcomes
        store = self._make_key_values()
        if self._broker.shares_keys(store):
            return outcomes
        store.apply([write for outcome in outcomes for write in outcome.keys])
        return [outcome._replace(keys=()) if outcome.keys else outcome for outcome in outcomes]

    def _store_apart(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Results first, so that a message is only acknowledged when its result is stored."""
        if self._backend is None:
            return list(outcomes)
        for guarded in (False, True):
            results = [r for outcome in outcomes if outcome.guarded is guarded for r in outcome.results]
            if results:
                self._backend.store(results, guarded=guarded)
        parts = [part for outcome in outcomes for part in outcome.chord_parts]
        if not parts:
            return list(outcomes)
        completing = {(part.group_id, part.task_id, part.index) for part in self._backend.count_parts(parts)}
        return [self._with_callback(outcome, completing) for outcome in outcomes]

    def _with_callback(self, outcome: Outcome, completing: set[tuple[str, str, int | None]]) -> Outcome:
        for part in outcome.chord_parts:
            if (part.group_id, part.task_id, part.index) in completing:
                outcome = self._complete(ReadyChord(outcome, part))
                assert self._backend is not None
                self._backend.store(outcome.results, guarded=True)
        return outcome

    def _forget_chords(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            for group_id in outcome.chords_done:
                if self._backend is not None:
                    self._backend.finish_chord(group_id)


class Outbox:
    """The outcomes of one owner that are not settled yet.  Several threads may flush it; one at a time settles an outcome."""

    def __init__(self, settler: Settler, ledger: Ledger, runner: Runner, bus: Bus) -> None:
        self._settler = settler
        self._ledger = ledger
        self._runner = runner
        self._bus = bus
        self._finished: deque[Outcome] = deque()
        self._settling: list[Outcome] = []
        self._turning = threading.Lock()

    def __len__(self) -> int:
        return len(self._finished)

    def tags(self) -> set[int]:
        """Tags of all outcomes that are not settled yet."""
        return {outcome.delivery.tag for outcome in (*self._settling, *self._finished)}

    def left(self) -> int:
        """How many outcomes are not settled.  Waits for another thread that is settling some: they may come back."""
        with self._turning:
            return len(self._finished)

    def put(self, outcome: Outcome) -> None:
        """Add an outcome that need not be in the ledger: its body never started."""
        self._finished.append(outcome)

    def finish(self, place: int, outcome: Outcome) -> bool:
        """Add the outcome of a run; return False when it must be settled at once."""
        # In this order: another thread that settles in between clears a page of the ledger, and must not clear this
        # outcome's record from it before it has taken the outcome.
        self._finished.append(outcome)
        return self._ledger.finish(place, outcome)

    def turn(self, owner: str, queues: Sequence[str], limit: int) -> list[Delivery]:
        """Settle what has finished, and lease.

        Raises:
            OwnerLost: what was to be settled is void.
            StoreUnavailable, StoreFull: the outcomes are kept for the next turn.
        """
        with self._turning:
            page = self._ledger.turn_page()
            self._settling = batch = self._take()
            try:
                settlement, leased = self._settle(owner, batch, queues, limit)
            except OwnerLost:
                raise
            except Exception:
                self._finished.extendleft(reversed(batch))
                raise
            finally:
                self._settling = []
            self._ledger.clear_page(page)
        if settlement.fenced:
            self._report_fenced(owner, settlement.fenced)
        return leased

    def _take(self) -> list[Outcome]:
        batch = []
        for _ in range(len(self._finished)):
            try:
                batch.append(self._finished.popleft())
            except IndexError:  # another thread was quicker
                break
        return batch

    def _settle(
        self, owner: str, batch: list[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        try:
            return self._settler.turn(owner, batch, queues, limit)
        except PASSING:
            raise
        except Exception as error:
            if not batch:
                raise
            logger.warning("The store refused a batch of %d outcomes (%s); settling one by one", len(batch), error)
            for outcome in batch:
                self._settle_alone(owner, outcome)
            return self._settler.turn(owner, (), queues, limit)

    def _settle_alone(self, owner: str, outcome: Outcome) -> None:
        try:
            self._settler.turn(owner, [outcome], (), 0)
        except PASSING:
            raise
        except Exception as error:
            self._settler.dead_letter(outcome, error, lambda instead: self._settler.turn(owner, [instead], (), 0))

    def _report_fenced(self, owner: str, count: int) -> None:
        logger.warning("%d outcomes were refused: their leases had been taken over, or were settled before", count)
        if self._bus.listening:
            self._bus.emit(LeaseFenced(owner, count))

    def drop(self) -> int:
        """Forget everything (the owner was lost); return how many outcomes that were."""
        dropped = len(self._finished)
        self._finished.clear()
        for page in (0, 1):
            self._ledger.clear_page(page)
        return dropped
