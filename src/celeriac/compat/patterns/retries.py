"""Retries: ``retries`` and ``retry_for`` (:mod:`celeriac.policies.retries`), beside Celery's own options."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from celery.exceptions import Ignore, Reject, Terminated, TimeLimitExceeded
from celery.exceptions import Retry as SentAgain

from celeriac.compat.jobs import is_coroutine_task
from celeriac.compat.patterns.pattern import Pattern
from celeriac.errors import ConfigurationError, InvalidPayload
from celeriac.policies.retries import Retry, Rules, retry_after, rule_for

STARTED_HEADER = "celeriac-started"
"""Header of a retry: when the first failed run began, in seconds since the epoch by its node's clock."""

INSTALLED = "celeriac_retries"
"""Attribute of a task object that has been prepared."""

NEVER = (Ignore, Reject, SentAgain, Terminated, TimeLimitExceeded, InvalidPayload)
"""What no rule is asked for: Celery's control exceptions, what ended a run from outside, and arguments that will not get better."""

CELERYS_OPTIONS = (
    "autoretry_for", "dont_autoretry_for", "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs", "max_retries",
    "default_retry_delay",
)  # fmt: skip


class RetriesPattern(Pattern):
    """When a task that raised is tried again."""

    options: ClassVar[Mapping[str, str]] = {
        "retries": "a celeriac.Retry, or one (or False: never) for each kind of exception",
        "retry_for": "seconds since the first failed run began, after which no retry begins",
    }

    def is_used(self, task: Any) -> bool:
        """See :meth:`Pattern.is_used`; also a coroutine with Celery's ``autoretry_for``."""
        return super().is_used(task) or (bool(kinds(task, "autoretry_for")) and is_coroutine_task(task))

    def check(self, task: Any) -> None:
        """See :meth:`Pattern.check`."""
        name = task.name
        longest = getattr(task, "retry_for", None)
        if longest is not None and (isinstance(longest, bool) or not isinstance(longest, (int, float)) or longest <= 0):
            raise ConfigurationError(f"Task {name}: retry_for is {longest!r}; it is a number of seconds above 0")
        if getattr(task, "retries", None) is None:
            return
        others = [option for option in CELERYS_OPTIONS if option in vars(type(task))]
        if others:
            raise ConfigurationError(
                f"Task {name}: retries says when to try again, and so does {others[0]}, which is Celery's own; drop one of them"
            )
        for retry in rules_of(task).values():
            if retry is not None and retry.times is None and retry.retry_for is None:
                raise ConfigurationError(
                    f"Task {name}: a Retry with times=None needs retry_for, or it is tried for ever"
                )

    def install(self, task: Any) -> None:
        """See :meth:`Pattern.install`."""
        if getattr(task, INSTALLED, False):
            return
        setattr(task, INSTALLED, True)
        if getattr(task, "retry_for", None) is not None:
            task.retry = _bounded(task)
        if getattr(task, "retries", None) is None:
            if kinds(task, "autoretry_for") and is_coroutine_task(task):
                task.run = _retrying(task, _automatic_rules(task))
        else:
            rules = rules_of(task)
            counts = [retry.times for retry in rules.values() if retry is not None]
            task.max_retries = None if None in counts else max(filter(None, counts), default=0)
            task.run = _retrying(task, rules)


def rules_of(task: Any) -> Rules:
    """The rules of a task's ``retries``, each within its ``retry_for``.

    Raises:
        ConfigurationError: the option is of no such form.
    """
    given = getattr(task, "retries", None)
    wanted = given if isinstance(given, Mapping) else {Exception: given}
    return {_kind(task, kind): _within(task, rule) for kind, rule in wanted.items()}


def _kind(task: Any, kind: Any) -> type[BaseException]:
    if isinstance(kind, type) and issubclass(kind, Exception):
        if issubclass(kind, NEVER):
            raise ConfigurationError(
                f"Task {task.name}: retries has a rule for {kind.__name__}, which is never retried"
            )
        return kind
    raise ConfigurationError(f"Task {task.name}: retries has {kind!r} where a class of exceptions belongs")


def _within(task: Any, rule: Any) -> Retry | None:
    if rule is False or rule is None:
        return None
    if not isinstance(rule, Retry):
        raise ConfigurationError(
            f"Task {task.name}: retries has {rule!r} where a celeriac.Retry (or False: never) belongs, "
            "for example Retry.exponential(1, times=5)"
        )
    longest = getattr(task, "retry_for", None)
    if longest is None or (rule.retry_for is not None and rule.retry_for <= longest):
        return rule
    return Retry(
        rule.delay, rule.growth, rule.factor, rule.cap, rule.jitter, rule.times, float(longest), rule.retry_after
    )


# -- Celery's own options ---------------------------------------------------------------------------------------------


def _automatic_rules(task: Any) -> Rules:
    """``autoretry_for`` of a coroutine: Celery's own wrapper does not wait for what it calls."""
    rule = automatic(task)
    return {**dict.fromkeys(kinds(task, "autoretry_for"), rule), **dict.fromkeys(kinds(task, "dont_autoretry_for"))}


def kinds(task: Any, option: str) -> tuple[type[BaseException], ...]:
    """The exceptions in one of Celery's options."""
    return tuple(getattr(task, option, ()) or ())


def automatic(task: Any) -> Retry:
    """Celery's ``autoretry_for``, as a rule of ours."""
    given = getattr(task, "retry_kwargs", None) or {}
    times = given["max_retries"] if given.get("max_retries") is not None else task.max_retries
    backoff = float(getattr(task, "retry_backoff", False))
    if not backoff:
        return fixed(task, given.get("countdown", task.default_retry_delay), times)
    first, cap = max(1.0, float(int(backoff))), float(getattr(task, "retry_backoff_max", 600))
    jitter = "full" if getattr(task, "retry_jitter", True) else "none"
    return Retry(min(first, cap), cap=cap, jitter=jitter, times=times, retry_for=_longest(task), retry_after=0)  # type: ignore[arg-type]


def fixed(task: Any, delay: float, times: int | None) -> Retry:
    """Celery's delay between retries, as a rule of ours."""
    return Retry.fixed(float(delay), jitter="none", times=times, retry_for=_longest(task), retry_after=0)


def _longest(task: Any) -> float | None:
    longest = getattr(task, "retry_for", None)
    return None if longest is None else float(longest)


# -- at run time ------------------------------------------------------------------------------------------------------


def _retrying(task: Any, rules: Rules) -> Callable[..., Any]:
    """The body, with whatever it raises judged by the rules."""
    body = task.run

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.time()
        try:
            return body(*args, **kwargs)
        except NEVER:
            raise
        except Exception as error:
            _try_again(task, rules, error, began)
            raise

    @functools.wraps(body)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        began = time.time()
        try:
            return await body(*args, **kwargs)
        except NEVER:
            raise
        except Exception as error:
            _try_again(task, rules, error, began)
            raise

    return run_async if is_coroutine_task(task) else run


def _try_again(task: Any, rules: Rules, error: Exception, began: float) -> None:
    """Raise Celery's ``Retry`` if the rules say so; else return, and the error is the task's."""
    request = task.request
    rule = rule_for(rules, error)
    if rule is None or request.called_directly or (type(error) not in rules and isinstance(error, tuple(task.throws))):
        return
    now = time.time()
    started = _started(request, began)
    delay = rule.next_delay(request.retries or 0, now - started, retry_after(error, now))
    if delay is not None:
        raise task.retry(exc=error, countdown=delay, headers=_headers(request, started))


def _bounded(task: Any) -> Callable[..., Any]:
    """``task.retry`` that gives up when the time is over, for Celery's own ways of retrying."""
    retry = task.retry
    longest = float(task.retry_for)

    @functools.wraps(retry)
    def bounded(
        args: Any = None, kwargs: Any = None, exc: Any = None, throw: bool = True, eta: Any = None, countdown: Any = None,
        max_retries: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        request, now = task.request, time.time()
        started = _started(request, now)
        wait = (
            eta.timestamp() - now
            if hasattr(eta, "timestamp")
            else task.default_retry_delay
            if countdown is None
            else countdown
        )
        if not request.called_directly and now + wait - started > longest:
            raise exc or task.MaxRetriesExceededError(f"Can't retry {task.name}[{request.id}]: {longest:g} s are over")
        options["headers"] = {**_headers(request, started), **(options.get("headers") or {})}
        return retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    return bounded


def _headers(request: Any, started: float) -> dict[str, Any]:
    return {**(request.headers or {}), STARTED_HEADER: started}


def _started(request: Any, began: float) -> float:
    """When the first failed run began: what the message says, or else this run."""
    said = request.__dict__.get(STARTED_HEADER)
    return float(said) if isinstance(said, (int, float)) and not isinstance(said, bool) and said > 0 else began
