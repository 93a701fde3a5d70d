"""``limits``, and ``rate_limit`` with ``rate_limit_scope="cluster"``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from celeriac.compat.patterns.pattern import Pattern, option
from celeriac.errors import ConfigurationError
from celeriac.policies.keys import CallKey
from celeriac.policies.lane import Claim
from celeriac.policies.limit import Limit

WORKER, CLUSTER = "worker", "cluster"


class LimitsPattern(Pattern):
    """How often, and how many at once, in the whole cluster."""

    options: ClassVar[Mapping[str, str]] = {
        "limits": "a celeriac.Limit, or a list of them",
        "rate_limit_scope": "what rate_limit is about: worker (each) or cluster (all together)",
    }

    def check(self, task: Any) -> None:
        """See :class:`Pattern`."""
        names = set()
        for limit in limits_of(task):
            name = limit_name(limit, task.name)
            if name in names:
                raise ConfigurationError(
                    f"Task {task.name} has two limits named {name!r}: write one Limit with both, or give one a name of its own"
                )
            names.add(name)
            make_rule(limit, task.name, task)


def limits_of(task: Any) -> tuple[Limit, ...]:
    """A task's limits for the whole cluster.  Raises ``ConfigurationError``."""
    given = option(task, "limits")
    several = tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)
    if not all(isinstance(limit, Limit) for limit in several):
        raise ConfigurationError(f"limits of task {task.name} is a celeriac.Limit or a list of them, not {given!r}")
    scope = option(task, "rate_limit_scope")
    if scope not in (None, WORKER, CLUSTER):
        raise ConfigurationError(f"rate_limit_scope of task {task.name} is {WORKER!r} or {CLUSTER!r}, not {scope!r}")
    if scope != CLUSTER:
        return several
    if not task.rate_limit:
        raise ConfigurationError(f"Task {task.name} has rate_limit_scope and no rate_limit, which it belongs to")
    return (*several, Limit(task.rate_limit))


def limits_cluster(task: Any) -> bool:
    """Whether a task's ``rate_limit`` is for the whole cluster."""
    return bool(option(task, "rate_limit_scope") == CLUSTER)


class Rule(NamedTuple):
    """One limit as it applies to one task."""

    name: str
    key: CallKey | None
    weight: int | CallKey | Callable[..., Any]

    def claim(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Claim:
        """What a call needs.  Raises ``ConfigurationError`` or ``TypeError`` when its arguments do not tell."""
        key = (self.key.of(args, kwargs) or "") if self.key else ""
        return Claim(self.name, key, self._weight(args, kwargs))

    def _weight(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        if isinstance(self.weight, int):
            return self.weight
        given = self.weight.of(args, kwargs) if isinstance(self.weight, CallKey) else self.weight(*args, **kwargs)
        try:
            return max(1, int(given))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The weight of a call under the limit {self.name} is {given!r}, not a number"
            ) from error


def limit_name(limit: Limit, home: str) -> str:
    """A limit's name: its own, or that of the task or queue, with the key."""
    if limit.name:
        return limit.name
    if limit.key is None:
        return home
    return f"{home}[{limit.key if isinstance(limit.key, str) else getattr(limit.key, '__name__', limit.key)}]"


def make_rule(limit: Limit, home: str, task: Any) -> Rule:
    """A limit applied to a task.  Raises ``ConfigurationError`` when it names an argument that the task does not have."""
    signature = inspect.signature(task.run)
    key = None if limit.key is None else CallKey("limits (key)", task.name, limit.key, signature)
    given = limit.weight
    weight = CallKey("limits (weight)", task.name, given, signature) if isinstance(given, str) else given
    return Rule(limit_name(limit, home), key, weight)
