"""When a task is tried again, whichever way it says so: for people to read."""

from __future__ import annotations

from typing import Any, NamedTuple

from celeriac.compat.patterns.retries import rules_of
from celeriac.policies.retries import Retry

SELF_RETRY = "self.retry()"


class Rule(NamedTuple):
    """What becomes of a kind of exception."""

    applies_to: str
    """Name of the exception's class, or :data:`SELF_RETRY` for what the body does by itself."""
    retry: Retry | None
    """``None``: never tried again."""


def describe(task: Any) -> list[Rule]:
    """The rules of a task: of its ``retries``, else of Celery's own options.

    Raises:
        ConfigurationError: options that cannot work.
    """
    if getattr(task, "retries", None) is not None:
        return [Rule(kind.__name__, retry) for kind, retry in rules_of(task).items()]
    automatic = [Rule(kind.__name__, _automatic(task)) for kind in _kinds(task, "autoretry_for")]
    never = [Rule(kind.__name__, None) for kind in _kinds(task, "dont_autoretry_for")] if automatic else []
    return [*automatic, *never] or [Rule(SELF_RETRY, _fixed(task, task.default_retry_delay, task.max_retries))]


def _kinds(task: Any, option: str) -> tuple[type[BaseException], ...]:
    return tuple(getattr(task, option, ()) or ())


def _automatic(task: Any) -> Retry:
    """Celery's ``autoretry_for``, as a rule of ours."""
    given = getattr(task, "retry_kwargs", None) or {}
    times = given["max_retries"] if given.get("max_retries") is not None else task.max_retries
    backoff = float(getattr(task, "retry_backoff", False))
    if not backoff:
        return _fixed(task, given.get("countdown", task.default_retry_delay), times)
    first, cap = max(1.0, float(int(backoff))), float(getattr(task, "retry_backoff_max", 600))
    jitter = "full" if getattr(task, "retry_jitter", True) else "none"
    return Retry(min(first, cap), cap=cap, jitter=jitter, times=times, retry_for=_longest(task), retry_after=0)  # type: ignore[arg-type]


def _fixed(task: Any, delay: float, times: int | None) -> Retry:
    return Retry.fixed(float(delay), jitter="none", times=times, retry_for=_longest(task), retry_after=0)


def _longest(task: Any) -> float | None:
    longest = getattr(task, "retry_for", None)
    return None if longest is None else float(longest)
