"""When a task is tried again, whichever way it says so: for people to read."""

from __future__ import annotations

from typing import Any, NamedTuple

from celeriac.compat.patterns.retries import automatic, fixed, kinds, rules_of
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
    tried = [Rule(kind.__name__, automatic(task)) for kind in kinds(task, "autoretry_for")]
    never = [Rule(kind.__name__, None) for kind in kinds(task, "dont_autoretry_for")] if tried else []
    return [*tried, *never] or [Rule(SELF_RETRY, fixed(task, task.default_retry_delay, task.max_retries))]
