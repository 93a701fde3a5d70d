"""The task options that Celery does not have: checked when a task is declared, and turned into policies when it is run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.compat import connect
from celeriac.compat.patterns.circuit_breaker import CircuitBreakerPattern
from celeriac.compat.patterns.dead_letter import DeadLetterPattern
from celeriac.compat.patterns.idempotency import IdempotencyPattern
from celeriac.compat.patterns.limits import LimitsPattern
from celeriac.compat.patterns.pattern import Pattern
from celeriac.compat.patterns.payload import PayloadPattern
from celeriac.compat.patterns.retries import RetriesPattern
from celeriac.compat.patterns.unique import UniquePattern
from celeriac.errors import ConfigurationError
from celeriac.policy import Policy

PATTERNS: tuple[Pattern, ...] = (
    DeadLetterPattern(),
    UniquePattern(),  # may give the run other arguments
    RetriesPattern(),
    PayloadPattern(),
    IdempotencyPattern(),
    LimitsPattern(),  # its place is where messages are leased
    CircuitBreakerPattern(),  # last: a probe that is then not run would be wasted
)
"""All patterns, in the order in which their policies are entered: what refuses a message comes before what waits for others, and
what counts runs comes last.
"""

SIMILAR = 0.8
"""How alike an unknown option and one of ours must be (:func:`difflib.get_close_matches`) to be a slip of the pen.  Celery lets a
task have any attribute, so what looks like none of ours is left alone."""


CELERYS_OWN = frozenset({
    "autoretry_for", "dont_autoretry_for", "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs",
})  # fmt: skip
"""Options that Celery reads and that are no attributes of its ``Task``."""


def known_options() -> dict[str, str]:
    """All options of all patterns, with what each means."""
    return {name: text for pattern in PATTERNS for name, text in pattern.options.items()}


def check_names(task: Any, given: Iterable[str]) -> None:
    """Look for misspelt options among those that a task was given: what Celery or the task's base class has is none.

    Raises:
        ConfigurationError: one looks like an option that there is.
    """
    known = known_options()
    inherited = {name for base in task.__class__.__mro__[1:] for name in vars(base)}
    for name in given:
        if name in known or name in CELERYS_OWN or name in inherited:
            continue
        close = difflib.get_close_matches(name, known, 1, SIMILAR)
        if close:
            raise ConfigurationError(
                f"Task {task.name} has an option {name!r}, which there is not. Did you mean {close[0]!r}?"
            )


def check_task(task: Any, given: Mapping[str, Any]) -> None:
    """Check a task that is being declared with these options.

    Raises:
        ConfigurationError: an option that is misspelt or cannot work.
    """
    check_names(task, given)
    for pattern in PATTERNS:
        if pattern.is_used(task):
            pattern.check(task)
            pattern.install(task)


def check_all(app: Any) -> None:
    """Check all tasks of an app that was written for Celery, when its worker starts.  Raises ``ConfigurationError``."""
    for name, task in app.tasks.items():
        if not name.startswith("celery."):
            check_task(task, own_attributes(task))


def check_shared_state(app: Any) -> None:
    """See that what tasks of an app share has a place.  Raises ``ConfigurationError``, which names the task and its option."""
    for name, task in app.tasks.items():
        for pattern in PATTERNS:
            if pattern.shares_state and pattern.is_used(task):
                given = next(each for each in pattern.options if getattr(task, each, None) is not None)
                connect.check_key_values(app, f"Task {name} has {given}, which")


def own_attributes(task: Any) -> dict[str, Any]:
    """What a task's own class says, without Python's and Celery's own names."""
    return {name: value for name, value in vars(type(task)).items() if not name.startswith("_")}


def changes_sending(task: Any) -> bool:
    """Whether a task uses a pattern that has a part in sending."""
    return any(pattern.is_used(task) and pattern.changes_sending(task) for pattern in PATTERNS)


def policies_of(app: Any, task: Any) -> tuple[Policy, ...]:
    """What wraps this task's runs; empty for most."""
    used = [pattern for pattern in PATTERNS if pattern.is_used(task)]
    for pattern in used:
        pattern.install(task)
    made = (pattern.policy(app, task) for pattern in used)
    return tuple(policy for policy in made if policy is not None)
