"""The heart of the engine: lease, run, settle.

One consumer serves one slot.  It leases a batch of messages into its inbox, has its pool run them, and settles their
outcomes from its outbox in the same round trip that leases the next batch.  Nothing else ever holds a message.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.broker import Broker, Listening
from celeriac.engine.budget import Budget
from celeriac.engine.ledger import Ledger
from celeriac.engine.outbox import Outbox
from celeriac.engine.runner import Fate, Runner
from celeriac.engine.thread_exception import forget
from celeriac.errors import StoreFull, StoreUnavailable
from celeriac.message import Delivery
from celeriac.outcome import Outcome
from celeriac.policies.gate import Gate
from celeriac.pool import Job, Pool
from celeriac.settings import EngineSettings
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import BatchSettled, BrokerBack, BrokerLost, MessagesReleased

logger = logging.getLogger("celeriac.engine")

RECALL_LIMIT = 1_000_000
"""More than a slot can hold."""

LONGEST_PAUSE = 2.0
"""Seconds between attempts to reach a store that is away.  Longer would delay the recovery; shorter would hammer it."""

LONGEST_WAIT = 0.5
"""Seconds that unstarted work may wait behind one running task even when nobody else would run it sooner."""

START_SECONDS = 0.005
"""How much work may come out of the lanes at once: little, because each must start within moments of its permit."""

LONGEST_REST = 60.0

Where = int | asyncio.Task[Any]
"""Where a job runs: in a thread, by its ident, or in a task of an event loop."""


class Consumer:
    """Leases, runs and settles for one owner."""

    def __init__(
        self,
        owner: str,
        queues: Sequence[str],
        settings: EngineSettings,
        broker: Broker,
        runner: Runner,
        pool: Pool,
        outbox: Outbox,
        ledger: Ledger,
        bus: Bus,
    ) -> None:
        self.owner = owner
        self.inbox: deque[Job] = deque()
        self.runs = 0
        """Bodies that were started."""
        self.progressed_at = time.monotonic()
        """When a body was last started or the inbox was last empty."""
        self._settings = settings
        self._queues = list(queues)
        self._broker = broker
        self._runner = runner
        # Called as soon as a body has ended: an exception that came later, in the middle of logging, could leave a lock taken.
        runner.body_ended = self._leave
        self._pool = pool
        self._outbox = outbox
        self._ledger = ledger
        self._bus = bus
        self._budget = Budget(settings, broker.best_batch)
        self._acknowledges = broker.acknowledges_apart
        self._pushed = broker.pushes
        self._running: dict[int, tuple[Job, Where]] = {}
        self.interrupting = threading.RLock()
        """Held by whoever interrupts a running job (in a signal's handler also by the thread that runs it), and by its thread
        when it takes the job off the list of those that run."""
        self._releasing = threading.Lock()
        self._returning: list[Job] = []
        """Unstarted jobs that were given back by a call whose answer never came."""
        self._last_tag = 0
        self._stopping = threading.Event()
        self._give_up_at: float | None = None
        self.gave_up = False
        """Whether it stopped although something could not be put in its place, because the store was away for too long."""
        self._drive_until = 0.0
        self._ran_seconds = 0.0
        self._ran = 0
        self._failures = 0
        self._failed_at = 0.0
        self._lease_unsure = False
        self._passing = 0
        """How many messages to lease while all go into lanes."""
        self._gate = runner.gate(owner, broker, sequential=settings.slot_concurrency == 1)

    # -- lease -----------------------------------------------------------------------------------------------------

    def run_once(self) -> bool:
        """Settle, lease, run; return whether there was anything to do.

        Raises:
            OwnerLost: everything that this consumer held is void.
        """
        self._shed()
        settled = len(self._outbox)
        leased = self._turn()
        if self._gate is not None:
            self._let_in(self._gate)
        for delivery in leased:
            self._accept(delivery)
        if self._gate is not None:
            self._pass_on(len(leased))
        if not self.inbox:
            self.progressed_at = time.monotonic()
        self._drive_until = time.monotonic() + 2 * self._settings.prefetch_seconds
        self._pool.drive()
        return bool(leased or settled or self.inbox or self._outbox)

    def _turn(self) -> list[Delivery]:
        self._measure()
        limit = self._limit()
        if not limit and not self._outbox:
            return []
        started, outcomes = time.monotonic(), len(self._outbox)
        try:
            self._recall()
            leased = self._outbox.turn(self.owner, self._next_queues(), limit)
        except (StoreUnavailable, StoreFull) as error:
            self._lease_unsure = self._lease_unsure or limit > 0
            self._pause(error)
            return []
        self._report_back()
        if self._bus.listening:
            self._bus.emit(BatchSettled(1, outcomes, len(leased), time.monotonic() - started))
        return leased

    def _limit(self) -> int:
        if self._stopping.is_set():
            return 0
        return max(0, self._within_life(max(self._budget.limit(len(self.inbox), self._pool.room()), self._passing)))

    def listen(self, *, quiet: bool) -> Listening:
        """There is nothing to do, and the store pushes messages: have them pushed (see :meth:`Broker.listen`)."""
        room = self._within_life(self._pool.room() - len(self.inbox))
        return self._broker.listen(self.owner, self._queues, max(1, room), quiet=quiet)

    def _within_life(self, count: int) -> int:
        """So many messages, or as many as this process may still run."""
        most = self._settings.max_tasks_per_child
        return count if most is None else min(count, most - self.runs - len(self.inbox))

    def _measure(self) -> None:
        seconds, runs = self._ran_seconds, self._ran
        self._ran_seconds, self._ran = 0.0, 0
        self._budget.observe(seconds, runs)

    def _shed(self) -> None:
        """Hand back what turned out to be much more work than its share."""
        fair = self._budget.affordable
        if self._returning or len(self.inbox) > max(2 * fair, self._settings.slot_concurrency):
            self._persistently(lambda: self.hand_back("slow_tasks"))

    def _next_queues(self) -> list[str]:
        """The queues in turn, so that none of them starves within one priority."""
        queues = self._queues
        if len(queues) > 1:
            queues.append(queues.pop(0))
        return queues

    def consume(self, queues: Sequence[str]) -> None:
        """Lease from these queues from now on, from any thread.  What is held of others is still run."""
        self._queues = list(queues)

    def _recall(self) -> None:
        """Accept what was leased to us by a call whose answer we never got, and see to what a store that was down has lost."""
        if not self._lease_unsure:
            return
        held = self._held()  # first: another thread may settle while the store is asked
        for delivery in self._broker.leased(self.owner, RECALL_LIMIT):
            if delivery.tag > self._last_tag:
                self._accept(delivery)
            elif delivery.tag not in held:
                self._outbox.put(self._forgotten(delivery))
        self._lease_unsure = False

    def _held(self) -> set[int]:
        """Tags of all that this consumer has to do with."""
        jobs = [*self.inbox, *self._returning, *(job for job, _ in self.running())]
        return {job.delivery.tag for job in jobs} | self._outbox.tags()

    def _forgotten(self, delivery: Delivery) -> Outcome:
        """What was settled and is leased again: a replica that took over, or a restart, has lost the store's last moment."""
        logger.warning("%s has forgotten the outcome of a message that was settled", self._broker.url)
        return self._runner.recover(delivery, Fate.SILENT, "the store forgot its outcome")

    def _accept(self, delivery: Delivery) -> None:
        self._last_tag = max(self._last_tag, delivery.tag)
        prepared = self._runner.prepare(delivery)
        if isinstance(prepared, Outcome):
            self._outbox.put(prepared)
            if self._gate is not None:
                self._gate.look_now()  # it may have gone into a lane
        else:
            self.inbox.append(prepared)

    def _let_in(self, gate: Gate) -> None:
        """Take from the lanes what limits allow.  It comes first: it is to start at once, and there is little of it."""
        room = 0 if self._stopping.is_set() or gate.rest() or not self._broker.has_lanes else self._startable()
        if room <= 0:
            return
        try:
            admitted = gate.lease(self._queues, room)
        except (StoreUnavailable, StoreFull) as error:
            self._lease_unsure = True
            self._pause(error)
            return
        for delivery, permit in reversed(admitted):
            self._last_tag = max(self._last_tag, delivery.tag)
            prepared = self._runner.prepare(delivery, permit)
            if isinstance(prepared, Outcome):
                self._outbox.put(prepared)
                permit.end()
            else:
                self.inbox.appendleft(prepared)

    def _pass_on(self, leased: int) -> None:
        """Lease more next time when all of these went into lanes: they are no work, and there may be many."""
        passes = leased and not self.inbox and self._settings.prefetch
        self._passing = min(max(4 * self._passing, leased), self._settings.batch_limit) if passes else 0

    def _startable(self) -> int:
        """How many messages can start at once, or nearly so."""
        room = self._pool.room()
        if self._settings.slot_concurrency == 1 and self._settings.prefetch:
            room = max(room, min(self._budget.within(START_SECONDS), self._settings.batch_limit))
        return self._within_life(room)

    def next_look(self) -> float:
        """Seconds until the lanes are to be looked at."""
        if self._gate is None or not self._broker.has_lanes or self._startable() <= 0:
            return LONGEST_REST
        return self._gate.rest()

    # -- run -------------------------------------------------------------------------------------------------------

    def run(self, job: Job, place: int) -> None:
        """Run one job in this thread (see :class:`celeriac.pool.Work`)."""
        started = self._begin(job, place, threading.get_ident())
        try:
            outcome = self._runner.run(job)
            self._leave(job)
        except BaseException as error:  # an interruption may come when the body has ended already
            outcome = self._failed(job, error)
        if job.permit is not None:
            job.permit.end()
        self._end(place, started, outcome)

    async def run_async(self, job: Job, place: int) -> None:
        """Run one coroutine job in this thread's event loop."""
        task = asyncio.current_task()
        assert task is not None
        started = self._begin(job, place, task)
        try:
            outcome = await self._runner.run_async(job)
            self._leave(job)
        except BaseException as error:
            outcome = self._failed(job, error)
        if job.permit is not None:
            await asyncio.to_thread(job.permit.end)
        self._end(place, started, outcome)

    def _begin(self, job: Job, place: int, where: Where) -> float:
        tag = job.delivery.tag
        now = time.monotonic()
        soft, hard = job.soft_limit, job.hard_limit
        if self._acknowledges and not job.is_late:
            self._acknowledge(tag)
        self._ledger.start(place, tag, now, now + soft if soft else 0.0, now + hard if hard else 0.0)
        self._running[tag] = (job, where)
        self.progressed_at = now
        self.runs += 1
        return now

    def _acknowledge(self, tag: int) -> None:
        try:
            self._broker.acknowledge(self.owner, tag)
        except StoreUnavailable as error:  # settling it comes to the same
            logger.warning("A message could not be acknowledged before it runs: %s", error)

    def _leave(self, job: Job) -> None:
        """Nothing interrupts this thread on behalf of the job any more.  A second call does nothing."""
        if job.delivery.tag not in self._running:
            return
        with self.interrupting:
            self._running.pop(job.delivery.tag, None)
        if job.interrupted is not None:
            forget()

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        self._leave(job)
        return self._runner.failed(job, error)

    def _end(self, place: int, started: float, outcome: Outcome) -> None:
        if not self._outbox.finish(place, outcome):
            self._drive_until = 0.0
        # Several threads may add at once and one of them be lost: this is an estimate.
        self._ran_seconds += time.monotonic() - started
        self._ran += 1

    def must_pause(self) -> bool:
        """Whether outcomes should be settled before more is run: enough time has passed, or the ledger is full."""
        return self.progressed_at > self._drive_until or self._stopping.is_set()

    def running(self) -> list[tuple[Job, Where]]:
        """What runs now, and where."""
        return list(self._running.values())

    # -- hand back -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Settle what has finished, from any thread, without leasing."""
        if self._outbox:
            self._outbox.turn(self.owner, (), 0)

    def hand_back(self, reason: str) -> int:
        """Put unstarted work back at the head of its queues, from any thread; return how many messages."""
        # First: what goes back would be pushed to this slot again.
        if self._pushed and not self._withdraw():
            return 0
        jobs = []
        while self.inbox:
            try:
                jobs.append(self.inbox.pop())
            except IndexError:  # the pool was quicker
                break
        if jobs or self._returning:
            self._release(jobs, reason)
        return len(jobs)

    def _withdraw(self) -> bool:
        """Have nothing pushed to this slot for now; return False when what it has not started may as well stay here."""
        jobs = [*self.inbox.copy(), *self._returning]
        if not jobs and not self.stopping and len(self._running) < self._settings.slot_concurrency:
            return True
        waited = time.monotonic() - self.progressed_at
        must = self.stopping or bool(self._returning) or waited > LONGEST_WAIT
        return self._broker.withdraw(self.owner, {job.delivery.queue for job in jobs}, must=must)

    def _release(self, jobs: list[Job], reason: str) -> None:
        with self._releasing:
            self._returning += jobs
            # They may be back in their queues even when this fails, so they are never run here any more.
            self._broker.release(self.owner, [job.delivery.tag for job in self._returning])
            jobs, self._returning = self._returning, []
        for job in jobs:
            if job.permit is not None:
                job.permit.end()
        if self._bus.listening:
            for queue in {job.delivery.queue for job in jobs}:
                count = sum(job.delivery.queue == queue for job in jobs)
                self._bus.emit(MessagesReleased(queue, count, reason))

    # -- start and stop --------------------------------------------------------------------------------------------

    def register(self) -> bool:
        """Make the owner known, however long the store is away; return False when told to stop before."""
        while not self.stopping:
            try:
                self._broker.register(self.owner, self._queues, self._settings.beat_ttl)
            except (StoreUnavailable, StoreFull) as error:
                self._pause(error)
            else:
                self._report_back()
                return True
        return False

    def stop(self, patience: float | None = None) -> None:
        """Lease nothing more, from any thread or signal handler.

        ``patience``: seconds after which a store that is away is given up; ``None``: never, because the node goes on.
        """
        if patience is not None and self._give_up_at is None:
            self._give_up_at = time.monotonic() + patience
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    def hand_back_persistently(self) -> None:
        """Hand unstarted work back, as long as :meth:`stop` allows for a store that is away."""
        if self.inbox or self._returning:
            self._persistently(lambda: self.hand_back("shutdown"))

    def wind_up(self) -> None:
        """Settle what is left, after the pool has finished.

        :attr:`gave_up` tells whether the store was away for longer than :meth:`stop` allows.
        """
        self.gave_up = False
        if self._lease_unsure:
            self._persistently(self._recall)
        self.hand_back_persistently()
        self._persistently(self._flush_all)
        if self.gave_up:
            logger.error(
                "Stopping without %s, which is away: %d outcomes are not settled. Another node takes over what is held here",
                self._broker.url, self._outbox.left(),
            )  # fmt: skip

    def _flush_all(self) -> None:
        if self._outbox.left():
            self._outbox.turn(self.owner, (), 0)

    def _persistently(self, action: Callable[[], object]) -> None:
        while True:
            try:
                action()
            except (StoreUnavailable, StoreFull) as error:
                if self._out_of_patience():
                    self.gave_up = True
                    return
                self._pause(error)
            else:
                self._report_back()
                return

    def _out_of_patience(self) -> bool:
        return self._give_up_at is not None and time.monotonic() > self._give_up_at

    # -- a store that is away --------------------------------------------------------------------------------------

    def _pause(self, error: Exception) -> None:
        if not self._failures:
            self._failed_at = time.monotonic()
            logger.warning("%s. Trying again until it is back", error)
            if self._bus.listening:
                self._bus.emit(BrokerLost(self._broker.url, str(error)))
        pause = min(LONGEST_PAUSE, 0.05 * 2 ** min(self._failures, 10))
        self._failures += 1
        time.sleep(pause * random.uniform(0.5, 1.0))

    def _report_back(self) -> None:
        if self._failures:
            down = time.monotonic() - self._failed_at
            self._failures = 0
            logger.warning("%s is back after %.1f s", self._broker.url, down)
            if self._bus.listening:
                self._bus.emit(BrokerBack(self._broker.url, down))
