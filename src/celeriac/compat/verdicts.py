"""Outcomes of deliveries that did not run to their end: bad input, lost processes, limits, refusals of the store."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.platforms import signals as signal_names
from kombu.serialization import prepare_accept_content

from celeriac.compat.collect import Collector, collected_outcome, collecting
from celeriac.compat.custom_request import lost, timed_out
from celeriac.compat.envelope import amend, decode_body, priority_of, with_headers
from celeriac.compat.jobs import Request, TaskJob, has_own
from celeriac.compat.parcel import is_parcel
from celeriac.compat.refused import announce_refused
from celeriac.compat.snooze import Snooze
from celeriac.compat.worker_lost import retried_after_loss
from celeriac.compat.worker_request import announce, worker_request
from celeriac.engine.runner import Fate
from celeriac.errors import InvalidPayload
from celeriac.message import ADMITTED_HEADER, AGAIN_HEADER, CRASHES_HEADER, Delivery, Message
from celeriac.outcome import DeadLetter, DeadReason, Outcome, State

logger = logging.getLogger("celery.worker.request")

LONGEST_ERROR = 2_000
"""Characters of an error's text kept in a dead letter."""
LONGEST_TRACEBACK = 20_000
LONGEST_LABEL = 500


def one_line(error: BaseException) -> str:
    """An exception as one line of bounded length, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "<unprintable>"
    return storable(f"{type(error).__name__}: {text}".replace("\n", " ")[:LONGEST_ERROR])


def _report_of(error: BaseException) -> str:
    """What a dead letter tells of an error that has no traceback of the task's."""
    return error.report() if isinstance(error, InvalidPayload) else ""


def storable(text: str) -> str:
    """A text that has an encoding: JSON can smuggle in half of a surrogate pair, which no store takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def label(value: Any) -> str:
    """A name or an id from a header that anybody may have written."""
    return storable(str(value)[:LONGEST_LABEL]) if isinstance(value, (str, int)) else ""


class Verdicts:
    """Judges for one worker."""

    def __init__(self, app: Any, hostname: str, max_crashes: int) -> None:
        self.app = self._app = app
        self.hostname = self._hostname = hostname
        self._max_crashes = max_crashes

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead(
        self, reason: DeadReason, error: BaseException, *, task: str = "", task_id: str = "",
        headers: dict[str, Any] | None = None, trace: str = "",
    ) -> DeadLetter | None:  # fmt: skip
        """A dead letter for an error; ``None`` for a task that says ``dead_letter=False``."""
        headers = headers or {}
        name = headers.get("task")
        if isinstance(name, str) and getattr(self._app.tasks.get(name), "dead_letter", None) is False:
            return None
        return DeadLetter(
            reason=reason.value,
            error=one_line(error),
            task=task or label(headers.get("task")),
            task_id=task_id or label(headers.get("id")),
            traceback=storable((trace or _report_of(error))[-LONGEST_TRACEBACK:]),
            attempts=whole(headers.get("retries")),
            crashes=whole(headers.get(CRASHES_HEADER)),
            worker=self._hostname,
            at=time.time(),
        )

    def malformed(
        self, delivery: Delivery, reason: DeadReason, error: BaseException, headers: dict[str, Any] | None = None
    ) -> Outcome:
        """A message that cannot be run: kept with its reason, and its sender told where it can be."""
        logger.error("Message dead-lettered (%s): %s", reason.value, one_line(error))
        announce_refused(self, delivery, reason, error, headers)
        outcome = Outcome(delivery, State.FAILED, dead=self.dead(reason, error, headers=headers))
        task_id, name = (label((headers or {}).get(header)) for header in ("id", "task"))
        if not task_id or not isinstance(headers, dict) or headers.get("ignore_result"):
            return outcome
        with collecting(Collector()) as collector:
            try:
                request = Request({"id": task_id, "delivery_info": {}, "task": name})
                self._app.backend.mark_as_failure(task_id, error, request=request)
            except Exception:
                logger.exception("The failure of %s could not be recorded", task_id)
        return collected_outcome(outcome, collector)

    def refused(self, delivery: Delivery, error: Exception) -> Outcome:
        """A message whose outcome the store refuses and of which nothing can be read: dead-lettered, and nothing else."""
        return Outcome(delivery, State.FAILED, dead=self.dead(DeadReason.FAILED, error))

    # -- owners that are gone --------------------------------------------------------------------------------------

    def recover(self, job: TaskJob, fate: Fate, detail: str) -> Outcome:
        """What becomes of a task whose process is gone."""
        if fate is Fate.TERMINATED:
            return self._revoked(job, detail)
        if fate is Fate.TIME_LIMIT:
            return self._timed_out(job, detail)
        task = job.plan.task
        if task.retry_on_worker_lost and fate in (Fate.CRASHED, Fate.SILENT):
            error = WorkerLostError(_exited(fate, detail) or f"the process that ran {job.name} died")
            retried = retried_after_loss(job, self.request_of(job), error)
            return retried or self._lost(job, fate, detail, late=job.plan.late)
        late = job.plan.late and task.reject_on_worker_lost is not False
        if late and fate is Fate.SHUTDOWN:
            return Outcome(job.delivery, State.INTERRUPTED, requeue=amend(job.delivery.raw))
        crashes = whole(job.headers.get(CRASHES_HEADER)) + 1
        job.headers[CRASHES_HEADER] = crashes
        if late and crashes <= self._max_crashes:
            words = _exited(fate, detail) or "Its process died."
            logger.warning("%s[%s] goes back to its queue (crash %d): %s", job.name, job.task_id, crashes, words)
            raw = amend(job.delivery.raw, **{CRASHES_HEADER: crashes})
            return Outcome(job.delivery, State.INTERRUPTED, requeue=raw)
        return self._lost(job, fate, detail, late=late)

    def _lost(self, job: TaskJob, fate: Fate, detail: str, *, late: bool) -> Outcome:
        crashes = whole(job.headers.get(CRASHES_HEADER)) or 1
        reason = DeadReason.POISON if late else DeadReason.LOST
        words = (_exited(fate, detail), self._lost_text(job, fate, crashes, late=late))
        return self.failed(job, WorkerLostError(" ".join(filter(None, words))), reason)

    @staticmethod
    def _lost_text(job: TaskJob, fate: Fate, crashes: int, *, late: bool) -> str:
        if late:
            return f"{job.name} killed its worker process {crashes} times"
        what = {
            Fate.SILENT: "its node stopped answering; it may have run",
            Fate.SHUTDOWN: "it was still running at a cold shutdown",
        }.get(fate, "its worker process died while it ran")
        return f"{job.name} was acknowledged early and is not started again: {what}"

    def _timed_out(self, job: TaskJob, detail: str) -> Outcome:
        error = TimeLimitExceeded(as_given(float(detail) if detail else job.hard_limit))
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", detail, job.name, job.task_id)
        if job.plan.request_class is not None:
            timed_out(self._own_request(job), as_given(float(detail or job.hard_limit)), soft=False)
        if job.plan.late and not job.plan.ack_timeouts:
            return Outcome(job.delivery, State.INTERRUPTED, requeue=amend(job.delivery.raw))
        return self.failed(job, error, DeadReason.TIME_LIMIT)

    def failed(self, job: TaskJob, error: BaseException, reason: DeadReason) -> Outcome:
        """Record a failure on behalf of a task that cannot do it itself, with its handlers and error callbacks."""
        logger.error("%s[%s]: %s", job.name, job.task_id, one_line(error))
        letter = self.dead(reason, error, headers=job.headers)
        if job.plan.request_class is not None:
            lost(self._own_request(job), error)
        with collecting(Collector()) as collector:
            try:
                self._announce_failure(job, error)
            except Exception:
                logger.exception("The failure of %s[%s] could not be recorded in full", job.name, job.task_id)
        return collected_outcome(Outcome(job.delivery, State.FAILED, dead=letter, guarded=True), collector)

    def _own_request(self, job: TaskJob) -> Any:
        """An object of the app's own ``Request`` class: that of the run, or one for a task whose process is gone."""
        if job.request is None:
            request = self.request_of(job)
            job.request = worker_request(self._app, job, (request.args, request.kwargs, {}), self._hostname)
        return job.request

    def _announce_failure(self, job: TaskJob, error: BaseException) -> None:
        request = self.request_of(job)
        task = job.plan.task
        try:
            raise error
        except type(error):
            einfo = ExceptionInfo()
        store = job.plan.store_errors or not ignores_result(job.plan, request)
        # As Celery does, without a traceback: it would lead here and not to what the task was doing.
        task.backend.mark_as_failure(job.task_id, error, request=request, store_result=store)
        task.on_failure(error, job.task_id, request.args, request.kwargs, einfo)
        if has_own(task, "after_return"):
            task.after_return("FAILURE", error, job.task_id, request.args, request.kwargs, None)
        signals.task_failure.send(
            sender=task, task_id=job.task_id, exception=error, args=request.args, kwargs=request.kwargs,
            traceback=error.__traceback__, einfo=einfo,
        )  # fmt: skip

    def record(self, job: TaskJob, request: Request, error: BaseException) -> bool:
        """Store a failure, with its error callbacks and its chord but without handlers.  Returns whether that went well."""
        store = job.plan.store_errors or not ignores_result(job.plan, request)
        try:
            job.plan.task.backend.mark_as_failure(job.task_id, error, request=request, store_result=store)
        except Exception:
            logger.exception("The failure of %s[%s] could not be recorded", job.name, job.task_id)
            return False
        return True

    def _revoked(self, job: TaskJob, detail: str) -> Outcome:
        return self.revoked(job, detail or "terminated", terminated=True, signum=_number_of(detail), expired=False)

    def revoked(self, job: TaskJob, why: str, *, terminated: bool, signum: int | None, expired: bool) -> Outcome:
        """A task that is not to run, or not any more; ``why`` is for the log, where Celery's words come before it."""
        request = self.request_of(job)
        embed = {name: request.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
        body = (request.args, request.kwargs, embed)
        with collecting(Collector()) as collector:
            store = not ignores_result(job.plan, request)
            reason = "expired" if expired else "terminated" if terminated else "revoked"
            job.plan.task.backend.mark_as_revoked(job.task_id, reason, request=request, store_result=store)
        announce(
            signals.task_revoked, job.plan.task, self._app, job, body, self._hostname,
            terminated=terminated, signum=signum, expired=expired,
        )  # fmt: skip
        logger.info("Discarding revoked task: %s[%s]%s", job.name, job.task_id, f" ({why})" if why else "")
        return collected_outcome(Outcome(job.delivery, State.EXPIRED if expired else State.REVOKED), collector)

    def request_of(self, job: TaskJob) -> Request:
        """The request context of a task that does not run, as far as its message can be read."""
        try:
            body = decode_body(job.envelope, self._app_accept())
            args, kwargs, embed = (
                body if isinstance(body, (list, tuple)) else (body.get("args"), body.get("kwargs"), body)
            )
            return make_request(job, args, kwargs, embed, self._hostname)
        except Exception:
            return make_request(job, (), {}, {}, self._hostname)

    def _app_accept(self) -> set[str]:
        return set(prepare_accept_content(self._app.conf.accept_content))


def make_request(job: TaskJob, args: Any, kwargs: Any, embed: dict[str, Any] | None, hostname: str) -> Request:
    """Celery's request context for a job.  Made by hand because Celery's own way takes longer than many a task."""
    properties = job.envelope["properties"]
    info = properties.get("delivery_info") or {}
    request = Request.__new__(Request)
    # One display, because a request is made for every task.
    request.__dict__ = own = {
        **job.headers,
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "hostname": hostname,
        "delivery_info": {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": info.get("redelivered", False),
        },
        "args": args,
        "kwargs": kwargs,
        "is_eager": False,
        "called_directly": False,
        "followed": False,
    }
    if embed:
        own["callbacks"], own["errbacks"] = embed.get("callbacks"), embed.get("errbacks")
        own["chain"], own["chord"] = embed.get("chain"), embed.get("chord")
        own["followed"] = bool(own["callbacks"] or own["chain"] or own["chord"])
    limits = own.get("timelimit")
    if isinstance(limits, (list, tuple)) and len(limits) > 1:
        own["time_limit"], own["soft_time_limit"] = limits[0], limits[1]
    return request


def ignores_result(plan: Any, request: Request) -> bool:
    """Whether this run's result is not kept: the message decides, else the task."""
    asked = request.__dict__.get("ignore_result")
    return plan.ignore_result if asked is None else bool(asked)


def back_to_tail(job: TaskJob) -> Outcome:
    """A message that asked to be queued again (``Reject(requeue=True)``): to the tail, as in Celery."""
    raw = job.delivery.raw
    again = {AGAIN_HEADER: True} if is_parcel(raw) else {}  # elsewhere the envelope itself says it
    message = Message(job.delivery.queue, amend(raw, **again), priority_of(job.envelope))
    return Outcome(job.delivery, State.INTERRUPTED, publish=(message,))


def parked(job: TaskJob, due: float, *, admitted: bool = False) -> Outcome:
    """A message that goes to the broker's schedule: as it is, or marked as let in by a rate limit."""
    raw = with_headers(job.delivery.raw, **{ADMITTED_HEADER: True}) if admitted else job.delivery.raw
    message = Message(job.delivery.queue, raw, priority_of(job.envelope), due)
    return Outcome(job.delivery, State.SNOOZED, publish=(message,))


def snoozed(job: TaskJob, snooze: Snooze, held: tuple[Message, ...]) -> Outcome:
    """A message whose body asked to run later."""
    outcome = parked(job, time.time() + snooze.seconds)
    return outcome._replace(publish=outcome.publish + held)


def as_given(limit: float) -> float:
    """A time limit as it was most likely written: ``30`` and not ``30.0``."""
    return int(limit) if limit == int(limit) else limit


def whole(value: Any) -> int:
    """A whole number from a header that anybody may have written."""
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _number_of(name: str) -> int | None:
    """The number of a signal; ``None`` when it is the name of something else."""
    try:
        return int(signal_names.signum(name))
    except (AttributeError, TypeError, ValueError):
        return None


def format_error(error: BaseException) -> str:
    """A traceback, as text."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _exited(fate: Fate, detail: str) -> str:
    """How a process ended, in the words of Celery's pool; empty when nobody saw it end."""
    return f"Worker exited prematurely: {detail}." if fate is Fate.CRASHED and detail else ""
