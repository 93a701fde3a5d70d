"""The tasks that every program of the oracle is made of, for an app of either kind."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta, timezone
from typing import Any

import celery
from celery import states
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests.oracle.notebook import note, stored_state, text_of, visits

QUEUES = ("celery", "second")
SETTINGS: dict[str, Any] = {
    "result_expires": 600,
    "task_send_sent_event": False,
    "worker_enable_remote_control": False,
    "task_routes": {"second.*": {"queue": "second"}},
    "worker_prefetch_multiplier": 4,
}


class PlainError(Exception):
    """An error of an app."""


class NeedsTwo(Exception):
    """An error that cannot be made from its text."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__(f"{first} and {second}")


class Unprintable(Exception):
    """An error with a bug of its own."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    """An error that holds what cannot leave its process."""

    def __init__(self, text: str) -> None:
        super().__init__(text, lambda: text)


class Expected(Exception):
    """What a task declares with ``throws``."""


def total(values: Any) -> int:
    """The sum of all whole numbers in nested lists."""
    if isinstance(values, (list, tuple)):
        return sum(total(value) for value in values)
    return values if isinstance(values, int) else 0


class Watched(celery.Task):
    """Writes down each call of a handler."""

    abstract = True

    def _note(self, event: str, task_id: str, kwargs: Any, **details: Any) -> None:
        if "tag" in kwargs:
            note(kwargs["tag"], event, kwargs["label"], task_id, self.request.retries, **details)

    def before_start(self, task_id, args, kwargs):
        self._note("before_start", task_id, kwargs, args=args)

    def on_success(self, retval, task_id, args, kwargs):
        self._note("on_success", task_id, kwargs, retval=retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self._note("on_failure", task_id, kwargs, exc=exc, einfo=type(einfo.exception).__name__)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self._note("on_retry", task_id, kwargs, exc=exc, einfo=type(einfo.exception).__name__)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):  # noqa: PLR0917  # Celery's signature
        self._note("after_return", task_id, kwargs, status=status, retval=retval, einfo=bool(einfo))


def step(self, *args, tag, label, do="ok", **details):
    """Does what it is told, and says what it was given."""
    request = self.request
    note(tag, "body", label, request.id, request.retries, args=args, parent=request.parent_id, root=request.root_id)
    return ACTS[do](self, args, tag, label, **details)


def ok(task, args, tag, label, **_):
    return total(args) + 1


def give(task, args, tag, label, value=None, **_):
    return value


def echo(task, args, tag, label, **_):
    return list(args)


def fail(task, args, tag, label, text="no", **_):
    raise PlainError(f"{label}: {text}")


def fail_from(task, args, tag, label, **_):
    try:
        int("x")
    except ValueError as error:
        raise PlainError(label) from error


def fail_two(task, args, tag, label, **_):
    raise NeedsTwo(label, {"a": 1})


def fail_unprintable(task, args, tag, label, **_):
    raise Unprintable(label)


def fail_unpicklable(task, args, tag, label, **_):
    raise Unpicklable(label)


def fail_group(task, args, tag, label, **_):
    raise TimeoutError(label, 110, None)


def exit_process(task, args, tag, label, **_):
    raise SystemExit(3)


def interrupt(task, args, tag, label, **_):
    raise KeyboardInterrupt


def die(task, args, tag, label, **_):
    """Killed once.  The second time nothing happens."""
    if visits(tag, label) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def send_then_fail(task, args, tag, label, **_):
    """What was sent before the error stays sent."""
    task.s(1, tag=tag, label=f"{label}-sent").delay()
    raise PlainError(label)


def cyclic(task, args, tag, label, **_):
    loop: list[Any] = []
    loop.append(loop)
    return loop


def many_children(task, args, tag, label, **_):
    return celery.chain(*(task.si(n, tag=tag, label=f"{label}-{n}") for n in range(3))).apply_async().id != ""


def state_of_others(task, args, tag, label, **_):
    """Reads and writes the state of another task."""
    task.update_state(task_id=f"{tag}-other", state="MOVED", meta={"by": label})
    return task.AsyncResult(f"{tag}-other").state


def fail_key(task, args, tag, label, **_):
    return {}[label]


def expected(task, args, tag, label, **_):
    raise Expected(label)


def recurse(task, args, tag, label, **_):
    return recurse(task, args, tag, label)


def retry(task, args, tag, label, times=1, **_):
    """Retries some times, then does as ``ok``."""
    if task.request.retries < times:
        raise task.retry(countdown=0)
    return total(args) + 1


def retry_later(task, args, tag, label, **_):
    if not task.request.retries:
        raise task.retry(countdown=0.3)
    return context(task, args, tag, label)


def retry_elsewhere(task, args, tag, label, **_):
    """Retries with options of a call."""
    if not task.request.retries:
        eta = datetime.now(timezone.utc) + timedelta(seconds=0.2)
        raise task.retry(eta=eta, queue="second", priority=4, expires=60, headers={"colour": "red"}, time_limit=20)
    return context(task, args, tag, label)


def retry_because(task, args, tag, label, max_retries=1, **_):
    raise task.retry(exc=PlainError(label), countdown=0, max_retries=max_retries)


def retry_out(task, args, tag, label, max_retries=1, **_):
    raise task.retry(countdown=0, max_retries=max_retries)


def retry_in_error(task, args, tag, label, **_):
    try:
        int("x")
    except ValueError as error:
        raise task.retry(exc=error, countdown=0, max_retries=1)  # noqa: B904  # the usual way to write it


def retry_with(task, args, tag, label, **_):
    """Other arguments the second time."""
    if task.request.retries:
        return list(args)
    raise task.retry(args=[7, 8], kwargs={"tag": tag, "label": label, "do": "retry_with"}, countdown=0)


def retry_quietly(task, args, tag, label, **_):
    if not task.request.retries:
        task.retry(countdown=0, throw=False)
    return task.request.retries


def ignore(task, args, tag, label, **_):
    raise Ignore(label)


def ignore_with_state(task, args, tag, label, **_):
    task.update_state(state="HALTED", meta={"label": label})
    raise Ignore


def ignore_as_failed(task, args, tag, label, **_):
    task.update_state(state=states.FAILURE, meta={"exc_type": "PlainError", "exc_message": [label]})
    raise Ignore


def progress(task, args, tag, label, **_):
    task.update_state(state="PROGRESS", meta={"done": 50})
    note(tag, "seen", label, task.request.id, 0, state=task.AsyncResult(task.request.id).state)
    return "done"


def reject(task, args, tag, label, requeue=False, **_):
    if requeue and visits(tag, label) > 1:
        return "second"
    raise Reject(label, requeue=requeue)


def unserialisable(task, args, tag, label, **_):
    return object()


def nested_value(task, args, tag, label, **_):
    return {"a": [1, 2.5, None, True, "ü"], "b": {"c": (1, 2)}}


def context(task, args, tag, label, **_):
    """All that the request says."""
    request = task.request
    note(tag, "request", label, request.id, request.retries, request={**vars(request), "headers": request.headers})


def fan_out(task, args, tag, label, inner="inner", **_):
    """Sends others from inside."""
    kwargs = {"tag": tag, "label": inner, "do": "ok"}
    task.apply_async((1,), kwargs)
    celery.group(task.s(tag=tag, label=f"{inner}-{n}") for n in range(2)).apply_async()
    return "sent"


def replace(task, args, tag, label, by=None, **_):
    return task.replace(task.app.signature(by))


def grow(task, args, tag, label, **_):
    """Adds a member to its own chord."""
    task.add_to_chord(task.s(10, tag=tag, label=f"{label}-more"))
    return 11  # as the new member: their order is chance


def grow_or_go(task, args, tag, label, **_):
    return grow(task, args, tag, label) if task.request.chord else ok(task, args, tag, label)


def soft_limit(task, args, tag, label, **_):
    try:
        while True:
            sum(range(1000))
    except SoftTimeLimitExceeded as error:
        return f"soft {error}"


def too_long(task, args, tag, label, **_):
    while True:
        sum(range(1000))


def call_inside(task, args, tag, label, **_):
    """Calls a task as a function, and eagerly."""
    inner = {"tag": tag, "do": "ok"}
    return [task(1, label=f"{label}-called", **inner), task.apply((2,), {"label": f"{label}-eager", **inner}).get()]


ACTS = {
    act.__name__: act
    for act in (
        ok, give, echo, fail, fail_from, fail_two, fail_key, expected, recurse, retry, retry_because, retry_out,
        retry_in_error, retry_with, retry_quietly, ignore, ignore_with_state, ignore_as_failed, progress, reject,
        retry_later, retry_elsewhere, unserialisable, nested_value, context, fan_out, replace, grow, soft_limit,
        too_long, call_inside, fail_unprintable, fail_unpicklable, fail_group, exit_process, interrupt, die,
        send_then_fail, cyclic, many_children, state_of_others, grow_or_go,
    )
}  # fmt: skip


def auto(self, *, tag, label, error="plain", times=99, **_):
    note(tag, "body", label, self.request.id, self.request.retries)
    if self.request.retries >= times:
        return self.request.retries
    raise {"plain": PlainError, "value": ValueError, "expected": Expected}[error](label)


def item(args):
    """One of the calls of a map: its tag, its label and a number."""
    return spread(*args)


def spread(tag, label, number):
    """One of the calls of a starmap, or of a chunk."""
    note(tag, "body", label, f"{tag}-{label}", 0, number=number)
    return number + 1


def errback(request, exc, traceback, *, tag, label):
    """An error callback of the new style."""
    note(tag, "errback", label, request.id, 0, exc=exc, parent=request.parent_id, has_traceback=bool(traceback))


def looking_errback(request, exc, traceback, *, tag, label):
    """Looks at the result of the task that failed, as somebody else would whom it tells."""
    note(tag, "errback", label, request.id, 0, state=stored_state(request.id))


def old_errback(task_id, *, tag, label):
    """An error callback of the old style: it takes the failed task's id."""
    note(tag, "old_errback", label, task_id, 0)


def handler_raises(self, *, tag, label):
    note(tag, "body", label, self.request.id, 0)
    return "fine"


def pair(self, tag, label, value):
    """A task with positional arguments, for maps and chunks."""
    note(tag, "body", label, self.request.id or f"{tag}-{label}", 0, value=value)
    return value + 1


def listed(self, item):
    """A task with one argument."""
    return pair(self, *item)


def auto_and_manual(self, *, tag, label):
    note(tag, "body", label, self.request.id, self.request.retries)
    if self.request.retries:
        return "done"
    raise self.retry(countdown=0, exc=ValueError(label))


class Named(Watched):
    """Chooses the names of its calls."""

    abstract = True

    def shadow_name(self, args, kwargs, options):
        return f"named.{kwargs['label']}"


class Wrapped(Watched):
    """Has a call of its own."""

    abstract = True

    def __call__(self, *args, **kwargs):
        note(kwargs["tag"], "call", kwargs["label"], self.request.id, 0)
        return ["wrapped", super().__call__(*args, **kwargs)]


class Replacing(Watched):
    """Says what comes of a task that is replaced."""

    abstract = True

    def on_replace(self, sig):
        kwargs = self.request.kwargs
        note(kwargs["tag"], "on_replace", kwargs["label"], self.request.id, 0, by=sig.task)
        return super().on_replace(sig)


class RaisingHandlers(Watched):
    """Handlers with bugs."""

    abstract = True

    def on_success(self, retval, task_id, args, kwargs):
        super().on_success(retval, task_id, args, kwargs)
        raise RuntimeError("on_success")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):  # noqa: PLR0917  # Celery's signature
        super().after_return(status, retval, task_id, args, kwargs, einfo)
        raise RuntimeError("after_return")


class RaisesAtTheEnd(Watched):
    """Handlers of errors with bugs."""

    abstract = True

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        super().on_failure(exc, task_id, args, kwargs, einfo)
        raise RuntimeError("on_failure")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        super().on_retry(exc, task_id, args, kwargs, einfo)
        raise RuntimeError("on_retry")


class RaisesBefore(Watched):
    """A handler that keeps the body from running."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        super().before_start(task_id, args, kwargs)
        raise RuntimeError("before_start")


class Looking(Watched):
    """Looks at its own result in each handler."""

    abstract = True

    def _note(self, event, task_id, kwargs, **details):
        result = self.AsyncResult(task_id)
        super()._note(event, task_id, kwargs, seen=[result.state, text_of(result.result), result.ready()])

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        """The next try may have written something already."""


class Tasks:
    """The tasks of one app."""

    def __init__(self, app: Any) -> None:
        self.app = app
        bound = {"bind": True, "base": Watched}
        self.step = app.task(shared=False, name="step", **bound)(step)
        self.second = app.task(shared=False, name="second.step", **bound)(step)
        self.late = app.task(shared=False, name="late", acks_late=True, **bound)(step)
        self.silent = app.task(shared=False, name="silent", ignore_result=True, **bound)(step)
        self.silent_errors = app.task(
            shared=False, name="silent_errors", ignore_result=True, store_errors_even_if_ignored=True, **bound
        )(step)
        self.tracked = app.task(shared=False, name="tracked", track_started=True, **bound)(step)
        self.throwing = app.task(shared=False, name="throwing", throws=(Expected,), **bound)(step)
        self.expiring = app.task(shared=False, name="expiring", expires=300, priority=3, **bound)(step)
        self.impatient = app.task(shared=False, name="impatient", soft_time_limit=0.5, time_limit=30, **bound)(step)
        self.doomed = app.task(shared=False, name="doomed", time_limit=1, **bound)(step)
        self.auto = app.task(
            shared=False,
            name="auto",
            autoretry_for=(PlainError,),
            max_retries=2,
            default_retry_delay=0,
            retry_jitter=False,
            **bound,
        )(auto)
        self.auto_backoff = app.task(shared=False,
            name="auto_backoff", autoretry_for=(Exception,), dont_autoretry_for=(Expected,), retry_backoff=True,
            retry_backoff_max=1, retry_jitter=False, max_retries=2, **bound,
        )(auto)  # fmt: skip
        self.auto_kwargs = app.task(
            shared=False,
            name="auto_kwargs",
            autoretry_for=(PlainError,),
            retry_kwargs={"max_retries": 1, "countdown": 0},
            **bound,
        )(auto)
        self.item = app.task(shared=False, name="item")(item)
        self.spread = app.task(shared=False, name="spread")(spread)
        self.auto_factor = app.task(
            shared=False,
            name="auto_factor",
            autoretry_for=(PlainError,),
            retry_backoff=0.1,
            retry_jitter=False,
            **bound,
        )(auto)
        self.auto_and_manual = app.task(shared=False, name="auto_and_manual", autoretry_for=(Exception,), **bound)(
            auto_and_manual
        )
        self.pair = app.task(shared=False, name="pair", bind=True)(pair)
        self.listed = app.task(shared=False, name="listed", bind=True)(listed)
        self.named = app.task(shared=False, name="named", bind=True, base=Named)(step)
        self.wrapped = app.task(shared=False, name="wrapped", bind=True, base=Wrapped)(step)
        self.replacing = app.task(shared=False, name="replacing", bind=True, base=Replacing)(step)
        self.errback = app.task(shared=False, name="errback")(errback)
        self.looking = app.task(shared=False, name="looking", **{**bound, "base": Looking})(step)
        self.looking_errback = app.task(shared=False, name="looking_errback")(looking_errback)
        self.old_errback = app.task(shared=False, name="old_errback")(old_errback)
        self.raising = app.task(shared=False, name="raising", bind=True, base=RaisingHandlers)(handler_raises)
        self.raises_at_the_end = app.task(shared=False, name="raises_at_the_end", bind=True, base=RaisesAtTheEnd)(step)
        self.raises_before = app.task(shared=False, name="raises_before", bind=True, base=RaisesBefore)(handler_raises)


def build(url: str, kind: type[celery.Celery], **settings: Any) -> Tasks:
    """An app of a kind with broker and results in one database."""
    app = kind("oracle", broker=url, backend=url, set_as_current=False)
    app.conf.update(SETTINGS, **settings)
    return Tasks(app)
