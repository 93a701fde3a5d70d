"""Runs Celery tasks: the engine's :class:`~celeriac.engine.runner.Runner`.

The plain case (no callbacks, no error) writes its outcome itself.  Everything else is left to Celery's own code with a collector
open, so that Celery's rules apply and all of its writes become one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import coroutine
from typing import Any

from celery import signals
from celery._state import _set_task_join_will_block
from celery.app.trace import setup_worker_optimizations
from celery.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded
from celery.utils.saferepr import saferepr
from kombu.exceptions import ContentDisallowed

from celeriac.broker import Broker
from celeriac.compat import chords, connect, context, followups, publish_buffer
from celeriac.compat.collect import Collector, collected_outcome, collecting
from celeriac.compat.control.orders import Orders, any_revoked, is_revoked, revoked_stamp
from celeriac.compat.custom_request import accepted, ended, timed_out
from celeriac.compat.envelope import decode
from celeriac.compat.forked import end_with_body
from celeriac.compat.guarding import Guard, abandoned
from celeriac.compat.jobs import Request, TaskJob
from celeriac.compat.judging import Judge, held
from celeriac.compat.limiting import Door, Limiting, turned_away
from celeriac.compat.long_work.work import WORK
from celeriac.compat.outside_loop import OutsideLoop
from celeriac.compat.periodic.copies import HEADER as COPY_HEADER
from celeriac.compat.periodic.copies import CopyWatch
from celeriac.compat.rate_limits import ADMITTED_HEADER, Buckets
from celeriac.compat.reading import Reader, UnknownTask
from celeriac.compat.records import PlainRecords
from celeriac.compat.sending import due_at
from celeriac.compat.settled import FINAL, Settled
from celeriac.compat.slot_logging import enter_slot
from celeriac.compat.verdicts import (
    Verdicts,
    as_given,
    ignores_result,
    make_request,
    one_line,
    parked,
)
from celeriac.compat.worker_request import announce, worker_request
from celeriac.compat.wrapped import RUN, end_of_process
from celeriac.engine.runner import Fate
from celeriac.errors import StoreError
from celeriac.message import CRASHES_HEADER, SENT_HEADER, Delivery
from celeriac.outcome import DeadReason, Outcome, ReadyChord, State
from celeriac.policies.gate import Gate, Permit
from celeriac.policies.limit_book import LimitBook
from celeriac.policy import Finish, Postpone, Refuse, Verdict
from celeriac.pool import Job
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import TaskDeadLettered, TaskFinished, TaskReceived, TaskStarted

received_log = logging.getLogger("celery.worker.strategy")
trace_log = logging.getLogger("celery.app.trace")


class CeleryRunner:
    """Decodes, runs and judges the tasks of one app."""

    def __init__(
        self, app: Any, hostname: str, bus: Bus, *, time_limit: float | None = None,
        soft_time_limit: float | None = None, max_crashes: int = 3, stores_apart: bool = False,
        buckets: Buckets | None = None, embedded: bool = False,
    ) -> None:  # fmt: skip
        """``stores_apart``: broker and results are not written together, so a redelivery may find a final result.  ``buckets``:
        the tasks' rate limits, unless they are off.  ``embedded``: others than tasks wait for results in this process.
        """
        self._app = app
        self._hostname = hostname
        self._bus = bus
        self._buckets = buckets
        self._embedded = embedded
        self._reader = Reader(app, soft_time_limit, time_limit, limited=buckets is not None)
        self._inherit_priority = bool(app.conf.task_inherit_parent_priority)
        self._verdicts = Verdicts(app, hostname, max_crashes)
        self._settled = Settled(app, self._verdicts, stores_apart=stores_apart)
        self._stopped: Callable[[TaskJob, Request, BaseException], tuple[Outcome, str, Any]]
        self._judge = Judge(self._verdicts)
        self._stopped = self._judge.stopped
        self._door: Door | None = None
        self.body_ended: Callable[[Job], None] = lambda _job: None
        """See :class:`~celeriac.engine.runner.Runner`."""
        self.orders: Orders | None = None
        """What remote control tells this runner, if there is any."""
        self.copies: CopyWatch | None = None
        """Keeps a tick that was sent twice from running twice, where that can be."""
        self._any_revoked = False
        self._count: Callable[[str], None] | None = None
        self._pid = os.getpid()
        self._records: PlainRecords | None = None
        self._log_info = trace_log.isEnabledFor(logging.INFO)
        self._log_received = received_log.isEnabledFor(logging.INFO)

    # -- the slot's life -------------------------------------------------------------------------------------------

    def on_fork(self) -> None:
        """See :class:`~celeriac.engine.runner.Runner`."""
        signals.worker_before_create_process.send(sender=self)

    def on_slot_start(self, place: int | None) -> None:
        """See :class:`~celeriac.engine.runner.Runner`."""
        app = self._app
        enter_slot(app, place, self._hostname)
        setup_worker_optimizations(app, self._hostname)
        context.install(app)
        _set_task_join_will_block(not self._embedded)
        app.loader.init_worker_process()
        self._pid = os.getpid()
        self._records = PlainRecords(app)
        self._log_info = trace_log.isEnabledFor(logging.INFO)
        self._log_received = received_log.isEnabledFor(logging.INFO)
        if self.orders is not None:
            self.orders.catch_up()
            self._any_revoked = any_revoked()
            self._count = self.orders.counts.add
        signals.worker_process_init.send(sender=self._hostname)

    def on_slot_stop(self) -> None:
        """See :class:`~celeriac.engine.runner.Runner`."""
        signals.worker_process_shutdown.send(sender=self._hostname, pid=os.getpid(), exitcode=0)
        end_of_process()
        publish_buffer.close_all()
        if self.orders is not None:
            self.orders.events.close()

    def on_task_fork(self) -> None:
        """See :class:`~celeriac.engine.runner.Runner`."""
        self._succeed = self._stopped = end_with_body  # type: ignore[method-assign]

    def on_order(self, order: str, *details: Any) -> None:
        """A word from the supervisor (see :mod:`celeriac.compat.control.orders`)."""
        if self.orders is not None:
            self.orders.obey(order, details[0])
            self._any_revoked = any_revoked()
            self._reader.forget_plans()  # a task's limits may be others now

    # -- decode ----------------------------------------------------------------------------------------------------

    def gate(self, owner: str, broker: Broker, *, sequential: bool) -> Gate | None:
        """See :class:`~celeriac.engine.runner.Runner`."""
        limiting = Limiting(self._app)
        if limiting:
            book, store = LimitBook(limiting.declared), connect.passing_key_values(self._app)
            with suppress(StoreError):  # it is for other workers, and the next slot does it again
                book.declare(store)
            gate = Gate(owner, broker, store, book, sequential=sequential)
            self._door = Door(limiting, gate, lanes=broker.has_lanes)
            return gate
        return None

    def prepare(self, delivery: Delivery, permit: Permit | None = None, *, to_run: bool = True) -> Job | Outcome:
        """See :class:`~celeriac.engine.runner.Runner`.  Without ``to_run`` no limit applies: it is about one that has run."""
        headers: Any = None
        try:
            envelope = decode(delivery.raw)
            headers = envelope.get("headers")
            if not headers or "task" not in headers:
                headers = self._reader.first_protocol(envelope)
            job = self._reader.job(delivery, envelope, headers)
            outside: Outcome | None = None
            if self.copies is not None and to_run and COPY_HEADER in headers:
                outside = self.copies.turned_away(job)
            if job.plan.interval or headers.get("eta") is not None or self._door is not None:
                outside = (
                    outside
                    or self._too_early(job, headers, to_run=to_run)
                    or self._kept_out(job, permit, to_run=to_run)
                )
            if outside is not None:
                return outside
        except UnknownTask as error:
            return self._verdicts.malformed(delivery, DeadReason.UNKNOWN_TASK, error, headers)
        except Exception as error:
            readable = headers if isinstance(headers, dict) else None
            return self._verdicts.malformed(delivery, DeadReason.INVALID, error, readable)
        if to_run:
            self._announce_received(job)
        return job

    def _announce_received(self, job: TaskJob) -> None:
        if self._log_received:
            received_log.info("Task %s[%s] received", job.headers.get("shadow") or job.name, job.task_id)
        if self._bus.listening:
            self._bus.emit(TaskReceived(job.name, job.delivery.queue, job.task_id))
            if self.orders is not None and not self._is_over(job.headers, job.task_id):
                self.orders.events.received(job)

    def _too_early(self, job: TaskJob, headers: dict[str, Any], *, to_run: bool) -> Outcome | None:
        """What becomes of a task whose ETA, or whose rate limit, does not let it run yet; ``None`` when it may."""
        due = due_at(self._app, headers.get("eta"))
        if due is not None and due > time.time():
            return parked(job, due)
        interval = job.plan.interval
        if not (interval and to_run and self._buckets is not None) or ADMITTED_HEADER in headers:
            return None
        wait, booked = self._buckets.admit(job.name, interval)
        return parked(job, time.time() + wait, admitted=booked) if wait else None

    def _kept_out(self, job: TaskJob, permit: Permit | None, *, to_run: bool) -> Outcome | None:
        """What becomes of a task that limits keep from running now; ``None`` when they do not."""
        if self._door is None or not to_run:
            return None
        return self._door.keep_out(job, permit, lambda: self._reader.body(job)[:2])

    # -- run -------------------------------------------------------------------------------------------------------

    def run(self, job: Any) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`."""
        request = self._open(job)
        if isinstance(request, Outcome):
            return self._abandoned(job, request)
        if job.plan.tracer is None:
            return self._run_guarded(job, request)
        ended: list[Outcome] = []
        request.__dict__[RUN] = lambda: ended.append(self._run_guarded(job, request))
        try:
            job.plan.tracer(job.task_id, request.args, request.kwargs, request)
        except Exception:
            trace_log.exception("What is wrapped around the runs of %s failed", job.name)
        return ended[0] if ended else self._run_guarded(job, request)

    def _run_guarded(self, job: TaskJob, request: Request) -> Outcome:
        if not job.plan.policies:
            return (job.permit and turned_away(job)) or self._run(job, request)
        guard = Guard(job.plan.policies, job, request)
        verdict = guard.enter()
        if verdict is None:
            outcome = (job.permit and turned_away(job)) or self._run(job, request)
        else:
            outcome = self._ruled(job, request, verdict)
        return guard.leave(outcome)

    def _run(self, job: TaskJob, request: Request) -> Outcome:
        plan = job.plan
        stack = plan.task.request_stack
        outer_tasks, outer_requests = context.task_stack.enter(plan.task), stack.enter(request)
        state, value = "FAILURE", None
        try:
            self._before(job, request)
            value = plan.fun(*request.args, **request.kwargs)
            self.body_ended(job)
            outcome, state = self._succeed(job, request, value)
        except BaseException as error:
            self.body_ended(job)
            outcome, state, value = self._stopped(job, request, error)
        finally:
            self._after(job, request, state, value)
            if job.is_unrecorded:
                outcome = self._judge.record_again(job, request, outcome)
            stack.leave(outer_requests)
            context.task_stack.leave(outer_tasks)
        if WORK in request.__dict__:
            outcome = request.__dict__[WORK].closed(outcome)
        return self._finished(job, outcome) if self._bus.listening else outcome

    async def run_async(self, job: Any) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`."""
        with OutsideLoop():
            request = self._open(job)
        if isinstance(request, Outcome):
            return self._abandoned(job, request)
        if not job.plan.policies:
            return (job.permit and await asyncio.to_thread(turned_away, job)) or await self._run_async(job, request)
        guard = Guard(job.plan.policies, job, request)
        # Policies go to a store and wait for it: in another thread, so that the other coroutines go on.
        verdict = await asyncio.to_thread(guard.enter)
        if verdict is None:
            away = job.permit and await asyncio.to_thread(turned_away, job)
            outcome = away or await self._run_async(job, request)
        else:
            with OutsideLoop():
                outcome = self._ruled(job, request, verdict)
        return await asyncio.to_thread(guard.leave, outcome)

    async def _run_async(self, job: TaskJob, request: Request) -> Outcome:
        plan = job.plan
        stack = plan.task.request_stack
        outer_tasks, outer_requests = context.task_stack.enter(plan.task), stack.enter(request)
        state, value = "FAILURE", None
        try:
            with OutsideLoop():
                self._before(job, request)
            value = await interruptible(plan.fun(*request.args, **request.kwargs), job)
            self.body_ended(job)
            with OutsideLoop():
                outcome, state = self._succeed(job, request, value)
        except BaseException as error:
            self.body_ended(job)
            with OutsideLoop():
                outcome, state, value = self._stopped(job, request, error)
        finally:
            with OutsideLoop():
                self._after(job, request, state, value)
                if job.is_unrecorded:
                    outcome = self._judge.record_again(job, request, outcome)
            stack.leave(outer_requests)
            context.task_stack.leave(outer_tasks)
        if WORK in request.__dict__:
            outcome = request.__dict__[WORK].closed(outcome)
        return self._finished(job, outcome) if self._bus.listening else outcome

    def _ruled(self, job: TaskJob, request: Request, verdict: Verdict) -> Outcome:
        """What a policy's verdict comes to; the body is not run."""
        with context.current(job.plan.task, request):
            if isinstance(verdict, Finish):
                trace_log.info("Task %s[%s] is not run: %s", job.name, job.task_id, verdict.reason)
                return self._success(job, request, verdict.value)
            if isinstance(verdict, Refuse):
                outcome = self._verdicts.failed(job, verdict.error, verdict.reason)
                return outcome if verdict.dead_letter else outcome._replace(dead=None)
        trace_log.info("Task %s[%s] is not run: %s", job.name, job.task_id, verdict.reason)
        if isinstance(verdict, Postpone):
            return parked(job, time.time() + verdict.seconds)
        return Outcome(job.delivery, State.IGNORED)

    def _abandoned(self, job: TaskJob, outcome: Outcome) -> Outcome:
        """Every outcome of a job that did not go through its policies goes through here."""
        return abandoned(job, self._verdicts.request_of(job), outcome) if job.plan.policies else outcome

    def _open(self, job: TaskJob) -> Request | Outcome:
        """Decode the arguments and see whether the task is still to run."""
        headers = job.headers
        try:
            args, kwargs, embed = self._reader.body(job)
            expired = self._has_expired(headers)
            request = make_request(job, args, kwargs, embed, self._hostname)
        except Exception as error:
            if isinstance(error, ContentDisallowed):
                error = ContentDisallowed(f"{error} (add it to accept_content if the senders are trusted)")
            return self._verdicts.malformed(job.delivery, DeadReason.INVALID, error, headers)
        if expired or self._is_revoked(job.task_id, headers):
            stamp = None if expired else revoked_stamp(headers)
            why = "expired" if expired else f"revoked by header: {stamp}" if stamp else ""
            return self._verdicts.revoked(job, why, terminated=False, signum=None, expired=expired)
        if signals.task_received.receivers:
            announce(signals.task_received, self, self._app, job, (args, kwargs, embed), self._hostname)
        return self._settled.request(job, request) if job.redelivered else request

    def _has_expired(self, headers: dict[str, Any]) -> bool:
        expires = headers.get("expires")
        moment = None if expires is None else due_at(self._app, expires)
        return moment is not None and time.time() > moment

    def _is_revoked(self, task_id: str, headers: dict[str, Any]) -> bool:
        return self._any_revoked and is_revoked(task_id, headers)

    def _is_over(self, headers: dict[str, Any], task_id: str) -> bool:
        """Whether a task is not going to run, which Celery finds before it says that it was received."""
        with suppress(ValueError):  # its date is no date, which is for later
            return self._is_revoked(task_id, headers) or self._has_expired(headers)
        return False

    def _before(self, job: TaskJob, request: Request) -> None:
        plan = job.plan
        if self._count is not None:
            self._count(plan.name)
        if self._bus.listening:
            self._announce_start(job)
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=plan.task, task_id=job.task_id, task=plan.task, args=request.args, kwargs=request.kwargs
            )
        if plan.track_started and not ignores_result(plan, request):
            started = {"pid": self._pid, "hostname": self._hostname}
            plan.task.backend.store_result(job.task_id, started, "STARTED", request=request)
        if self._log_info or self._bus.listening or signals.task_success.receivers or plan.request_class:
            job.started_at = time.monotonic()
        if plan.request_class is not None:
            job.request = worker_request(self._app, job, (request.args, request.kwargs, {}), self._hostname)
            accepted(job.request)
        if plan.before_start is not None:
            plan.before_start(job.task_id, request.args, request.kwargs)

    def _announce_start(self, job: TaskJob) -> None:
        now = time.time()
        sent = job.headers.get(SENT_HEADER)
        if isinstance(sent, (int, float)):
            eta = job.headers.get("eta")
            job.waited = now - max(sent, due_at(self._app, eta) or 0.0) if eta else now - sent
        retries, crashes = job.headers.get("retries") or 0, job.headers.get(CRASHES_HEADER) or 0
        self._bus.emit(TaskStarted(job.name, job.delivery.queue, job.task_id, now, job.waited, retries, crashes))

    # -- success ---------------------------------------------------------------------------------------------------

    def _succeed(self, job: TaskJob, request: Request, value: Any) -> tuple[Outcome, str]:
        outcome = self._success(job, request, value)
        request.__dict__["recorded"] = outcome.results
        plan = job.plan
        if plan.policies:
            job.value = value
        if plan.on_success is not None:
            try:
                plan.on_success(value, job.task_id, request.args, request.kwargs)
            except Exception:
                trace_log.exception("Task %s[%s] on_success handler raised", job.name, job.task_id)
        if signals.task_success.receivers:
            signals.task_success.send(sender=plan.task, result=value, runtime=time.monotonic() - job.started_at)
        if self._log_info:
            self._log_success(job, request, value)
        return outcome, "SUCCESS"

    def _success(self, job: TaskJob, request: Request, value: Any) -> Outcome:
        own = request.__dict__
        # A task that sent its own retry and went on all the same: the first to finish is the one that counts.
        guarded = job.redelivered or bool(own.get("retries"))
        if not (own["followed"] or "held" in own):
            if ignores_result(job.plan, request):
                return Outcome(job.delivery, State.SUCCEEDED)
            assert self._records is not None
            record = None if job.plan.own_backend else self._records.encode(job.task_id, value, request)
            if record is not None:
                return Outcome(job.delivery, State.SUCCEEDED, (record,), guarded=guarded)
        with collecting(Collector()) as collector:
            try:
                followups.dispatch(self._app, value, request, inherit_priority=self._inherit_priority)
                publish_result = not ignores_result(job.plan, request)
                job.plan.task.backend.mark_as_done(job.task_id, value, request, publish_result)
            except BaseException:  # what could be sent is sent, although the task has failed now
                own["held"] = [*held(request), *collector.publish]
                raise
        outcome = Outcome(job.delivery, State.SUCCEEDED, publish=held(request), guarded=guarded)
        return collected_outcome(outcome, collector)

    def _log_success(self, job: TaskJob, request: Request, value: Any) -> None:
        runtime = time.monotonic() - job.started_at
        text = saferepr(value, job.plan.task.resultrepr_maxsize)
        data = {
            "id": job.task_id,
            "name": request.shadow or job.name,
            "return_value": text,
            "runtime": runtime,
            "args": job.headers.get("argsrepr"),
            "kwargs": job.headers.get("kwargsrepr"),
        }
        trace_log.info("Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s", data, extra={"data": data})

    # -- the end ---------------------------------------------------------------------------------------------------

    def _after(self, job: TaskJob, request: Request, state: str, value: Any) -> None:
        """Handlers that run whatever came of the body; their errors are their own."""
        plan = job.plan
        try:
            if plan.after_return is not None and state in FINAL:
                plan.after_return(state, value, job.task_id, request.args, request.kwargs, None)
        except Exception:
            trace_log.exception("Task %s[%s] after_return handler raised", job.name, job.task_id)
        if job.request is not None:
            ended(job.request, state, value, time.monotonic() - job.started_at)
        if signals.task_postrun.receivers:
            signals.task_postrun.send(
                sender=plan.task, task_id=job.task_id, task=plan.task, args=request.args, kwargs=request.kwargs,
                retval=value, state=state,
            )  # fmt: skip

    def _finished(self, job: TaskJob, outcome: Outcome) -> Outcome:
        if self._bus.listening:
            ran = time.monotonic() - job.started_at if job.started_at else None
            retries, crashes = job.headers.get("retries") or 0, job.headers.get(CRASHES_HEADER) or 0
            dead = outcome.dead
            exception = dead.error.partition(":")[0] if dead else ""
            queue = job.delivery.queue
            self._bus.emit(
                TaskFinished(
                    job.name, queue, job.task_id, outcome.state.value, time.time(), ran, job.waited, retries, crashes,
                    exception,
                )
            )  # fmt: skip
            if dead:
                self._bus.emit(
                    TaskDeadLettered(job.name, queue, job.task_id, dead.reason, dead.error, retries, crashes)
                )
        return outcome

    # -- the rest of the contract ----------------------------------------------------------------------------------

    def complete_chord(self, chord: ReadyChord, parts: Sequence[bytes]) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`.  The member that came last is the callback's parent."""
        with self._as_current(chord.outcome.delivery), collecting(Collector()) as collector:
            chords.publish_callback(self._app.backend, chord.part, parts, tries_again=True)
        outcome = chord.outcome._replace(
            chord_parts=(), results=(), chords_done=(*chord.outcome.chords_done, chord.part.group_id)
        )
        return collected_outcome(outcome, collector)

    def _as_current(self, delivery: Delivery) -> AbstractContextManager[None]:
        """Make a delivery that has run the current task again, as far as it can be read."""
        try:
            envelope = decode(delivery.raw)
            headers = envelope.get("headers")
            job = self._reader.job(
                delivery, envelope, headers if headers and "task" in headers else self._reader.first_protocol(envelope)
            )
        except Exception:  # it was refused for the same reason
            return nullcontext()
        return context.current(job.plan.task, self._verdicts.request_of(job))

    def recover(self, delivery: Delivery, fate: Fate, detail: str) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`."""
        job = self.prepare(delivery, to_run=False)
        if isinstance(job, Outcome):
            return job
        assert isinstance(job, TaskJob)
        outcome = self._settled.found(job) or self._verdicts.recover(job, fate, detail)
        return self._finished(job, self._abandoned(job, outcome))

    def failed(self, job: Job, error: BaseException) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`."""
        assert isinstance(job, TaskJob)
        error = job.interrupted or error
        with OutsideLoop():
            if isinstance(error, Terminated):
                outcome = self._verdicts.revoked(job, "terminated", terminated=True, signum=None, expired=False)
            else:
                reason = DeadReason.TIME_LIMIT if isinstance(error, TimeLimitExceeded) else DeadReason.FAILED
                outcome = self._verdicts.failed(job, error, reason)
        return self._finished(job, self._abandoned(job, outcome))

    def unsettleable(self, outcome: Outcome, error: Exception) -> Outcome:
        """See :class:`~celeriac.engine.runner.Runner`."""
        trace_log.error("The outcome of a task could not be stored: %s", one_line(error))
        try:
            envelope = decode(outcome.delivery.raw)
            job = self._reader.job(outcome.delivery, envelope, envelope["headers"])
            return self._abandoned(job, self._verdicts.failed(job, error, DeadReason.FAILED))
        except Exception:
            return self._verdicts.refused(outcome.delivery, error)

    def interruption(self, job: Job, reason: str, limit: float) -> BaseException:
        """See :class:`~celeriac.engine.runner.Runner`."""
        assert isinstance(job, TaskJob)
        if job.request is not None and reason in ("soft", "hard"):
            timed_out(job.request, as_given(limit), soft=reason == "soft")
        if reason == "soft":
            trace_log.warning("Soft time limit (%gs) exceeded for %s[%s]", limit, job.name, job.task_id)
            return SoftTimeLimitExceeded(as_given(limit))
        return TimeLimitExceeded(as_given(limit)) if reason == "hard" else Terminated(limit)


@coroutine
def interruptible(body: Coroutine[Any, Any, Any], job: TaskJob) -> Generator[Any, Any, Any]:
    """Await a body; if it is cancelled because of a time limit it sees that limit's exception instead."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            future = body.send(value) if error is None else body.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            value = yield future
        except asyncio.CancelledError as cancelled:
            error = job.interrupted or cancelled
        except BaseException as other:
            error = other
