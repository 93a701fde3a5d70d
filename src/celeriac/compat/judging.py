"""What becomes of a task whose body raised: Celery's rules, with everything that they write collected into one outcome."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app.trace import TraceInfo, traceback_clear
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded

from celeriac.compat.collect import Collector, collected_outcome, collecting, current_collector
from celeriac.compat.jobs import Request, TaskJob
from celeriac.compat.snooze import Snooze
from celeriac.compat.verdicts import (
    Verdicts,
    back_to_tail,
    format_error,
    ignores_result,
    snoozed,
)
from celeriac.errors import InvalidPayload
from celeriac.message import Message
from celeriac.outcome import DeadReason, Outcome, State

trace_log = logging.getLogger("celery.app.trace")


class Judge:
    """Judges the errors of one worker's tasks."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    def stopped(self, job: TaskJob, request: Request, error: BaseException) -> tuple[Outcome, str, Any]:
        """A body that raised.  The outcome, Celery's name of the state, and the value for its handlers."""
        if job.interrupted is not None and isinstance(error, asyncio.CancelledError):
            error = job.interrupted
        job.error = error
        if isinstance(error, Terminated):
            return (
                self._verdicts.revoked(job, "terminated", terminated=True, signum=None, expired=False),
                "REVOKED",
                error,
            )
        collector = Collector()
        try:
            with collecting(collector):
                outcome, state = self._judged(job, request, error)
            traceback_clear(error)
        except Exception as bug:
            with collecting(collector):
                outcome, state = self._despite(job, request, error, bug)
        request.__dict__["recorded"] = tuple(collector.results)
        return collected_outcome(outcome, collector), state, error

    def _despite(self, job: TaskJob, request: Request, error: BaseException, bug: Exception) -> tuple[Outcome, str]:
        """What comes of a task whose handlers, or the recording of whose error, failed: what was recorded so far stands."""
        trace_log.error("Task %s[%s]: a handler of its error failed", job.name, job.task_id, exc_info=bug)
        signals.task_internal_error.send(
            sender=job.plan.task, task_id=job.task_id, args=request.args, kwargs=request.kwargs, request=request,
            exception=bug, traceback=bug.__traceback__, einfo=ExceptionInfo((type(bug), bug, bug.__traceback__)),
        )  # fmt: skip
        if isinstance(error, Retry):
            return Outcome(job.delivery, State.RETRYING, publish=held(request)), "RETRY"
        if isinstance(error, Reject) and error.requeue:
            return back_to_tail(job), "REJECTED"
        collector = current_collector()
        if collector is not None and not (collector.results or collector.publish or collector.chord_parts):
            job.is_unrecorded = not self._verdicts.record(job, request, bug)
        letter = self._verdicts.dead(DeadReason.FAILED, error, headers=job.headers, trace=format_error(bug))
        return Outcome(job.delivery, State.FAILED, publish=held(request), dead=letter), "FAILURE"

    def record_again(self, job: TaskJob, request: Request, outcome: Outcome) -> Outcome:
        """Store a failure that could not be stored before the receivers of ``task_postrun`` were called: those of Django's
        give up a broken connection to the database, which may have the results, too.
        """
        assert job.error is not None
        with collecting(Collector()) as collector:
            self._verdicts.record(job, request, job.error)
        return collected_outcome(outcome, collector)

    def _judged(self, job: TaskJob, request: Request, error: BaseException) -> tuple[Outcome, str]:
        delivery, task = job.delivery, job.plan.task
        if isinstance(error, Reject):
            return self._rejected(job, request, error)
        if isinstance(error, Snooze):
            trace_log.info("Task %s[%s] snoozes: %s", job.name, job.task_id, error)
            return snoozed(job, error, held(request)), "IGNORED"
        if isinstance(error, Ignore):
            TraceInfo("IGNORED", error).handle_ignore(task, request)
            return Outcome(delivery, State.IGNORED, publish=held(request)), "IGNORED"
        if isinstance(error, Retry):
            TraceInfo("RETRY", error).handle_error_state(task, request, call_errbacks=False)
            return Outcome(delivery, State.RETRYING, publish=held(request)), "RETRY"
        einfo = TraceInfo("FAILURE", error).handle_error_state(task, request)
        outcome = Outcome(delivery, State.FAILED, publish=held(request), guarded=job.redelivered)
        if (job.plan.late and not job.plan.ack_failures) or (task.throws and isinstance(error, task.throws)):
            return outcome, "FAILURE"
        return outcome._replace(
            dead=self._verdicts.dead(_reason(error), error, headers=job.headers, trace=str(einfo.traceback))
        ), "FAILURE"

    def _rejected(self, job: TaskJob, request: Request, error: Reject) -> tuple[Outcome, str]:
        task = job.plan.task
        TraceInfo("REJECTED", error).handle_reject(task, request)
        if error.requeue:
            return back_to_tail(job), "REJECTED"
        store = job.plan.store_errors or not ignores_result(job.plan, request)
        task.backend.mark_as_failure(job.task_id, error, request=request, store_result=store)
        signals.task_failure.send(
            sender=task, task_id=job.task_id, exception=error, args=request.args, kwargs=request.kwargs,
            traceback=error.__traceback__, einfo=ExceptionInfo(),
        )  # fmt: skip
        cause = error.reason if isinstance(error.reason, BaseException) else error
        letter = self._verdicts.dead(DeadReason.REJECTED, cause, headers=job.headers)
        return Outcome(job.delivery, State.FAILED, publish=held(request), dead=letter), "REJECTED"


def held(request: Request) -> tuple[Message, ...]:
    """Messages with the running task's own id that its body sent (its retry, or what it is replaced by): they wait for the
    outcome, so that they and the acknowledgement are one write.
    """
    return tuple(request.__dict__.get("held") or ())


def _reason(error: BaseException) -> DeadReason:
    if isinstance(error, TimeLimitExceeded):
        return DeadReason.TIME_LIMIT
    if isinstance(error, InvalidPayload):
        return DeadReason.INVALID if error.refused else DeadReason.FAILED
    return DeadReason.INVALID if _wrong_arguments(error) else DeadReason.FAILED


def _wrong_arguments(error: BaseException) -> bool:
    """Whether a call did not get as far as the body: a ``TypeError`` raised with no frame of the task on the way."""
    return isinstance(error, TypeError) and error.__traceback__ is not None and error.__traceback__.tb_next is None
