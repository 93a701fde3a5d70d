"""``circuit_breaker``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded

from celeriac.compat import connect
from celeriac.compat.patterns.pattern import Pattern, option
from celeriac.errors import ConfigurationError
from celeriac.policies.breaking import CircuitBreaker
from celeriac.policies.circuit_breaker import Breaker
from celeriac.policy import Policy


class CircuitBreakerPattern(Pattern):
    """Stop running what fails for all."""

    options: ClassVar[Mapping[str, str]] = {
        "circuit_breaker": "a breaker's name, or a celeriac.Breaker: not run while what it needs is down",
    }
    shares_state = True

    def check(self, task: Any) -> None:
        """See :class:`Pattern`."""
        breaker_of(task.app, task)

    def policy(self, app: Any, task: Any) -> Policy:
        """See :class:`Pattern`."""
        breaker = breaker_of(app, task)
        return CircuitBreaker(breaker, lambda: connect.key_values(app), cause_of, lambda: TimeLimitExceeded(0))


def breaker_of(app: Any, task: Any) -> Breaker:
    """A task's breaker: as it is written there, or at another task of the app when only its name is.

    Raises:
        ConfigurationError: it is no breaker, or two tasks say different things of one.
    """
    given = option(task, "circuit_breaker")
    mine = Breaker(given) if isinstance(given, str) else given
    if not isinstance(mine, Breaker):
        raise ConfigurationError(
            f"circuit_breaker of task {task.name} is a name or a celeriac.Breaker, not {type(given).__name__}"
        )
    for other in list(app._tasks.values()):
        theirs = option(other, "circuit_breaker")
        if not isinstance(theirs, Breaker) or theirs.name != mine.name or other.name == task.name:
            continue
        if isinstance(given, str):
            return theirs
        if _numbers(theirs) != _numbers(mine):
            raise ConfigurationError(
                f"Tasks {other.name} and {task.name} say different things of the circuit breaker {mine.name!r}; "
                f"say it once, and circuit_breaker={mine.name!r} at the other"
            )
    return mine


def _numbers(breaker: Breaker) -> Breaker:
    """What tasks that share a breaker must agree on: not what becomes of each of them, and not what counts as a failure of it."""
    return dataclasses.replace(breaker, when_open="park", only=(), ignore=())


def breakers_of(app: Any) -> dict[str, Breaker]:
    """The breakers of an app's tasks, by name."""
    tasks = [task for task in app.tasks.values() if option(task, "circuit_breaker") is not None]
    return {breaker.name: breaker for breaker in (breaker_of(app, task) for task in tasks)}


def cause_of(error: BaseException) -> BaseException | None:
    """What a body failed with: behind a retry, its cause.  Celery's other control exceptions say nothing about it."""
    if isinstance(error, Retry):
        return error.exc if isinstance(error.exc, BaseException) else None
    return None if isinstance(error, (Ignore, Reject, Terminated)) else error
