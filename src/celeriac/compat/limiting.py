"""The limits of an app: those that its tasks declare, and those of its queues."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.envelope import priority_of
from celeriac.compat.jobs import TaskJob
from celeriac.compat.patterns.limits import Rule, limit_name, limits_of, make_rule
from celeriac.compat.verdicts import parked
from celeriac.errors import ConfigurationError
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from celeriac.policies.gate import Gate, Permit
from celeriac.policies.lane import Claim, claims_of, name_of
from celeriac.policies.limit import Allowance, Limit

Arguments = Callable[[], tuple[Sequence[Any], Mapping[str, Any]]]


class Rules(NamedTuple):
    """All limits of one task on one queue."""

    rules: tuple[Rule, ...]
    lane: str
    """The lane of all calls, where they are the same; else empty."""

    def lane_of(self, arguments: Arguments) -> str:
        """The lane of a call.  ``arguments`` is only asked where they matter."""
        return self.lane or name_of(self.claims_of(arguments))

    def claims_of(self, arguments: Arguments) -> tuple[Claim, ...]:
        """What a call needs of its limits."""
        if self.lane:
            return claims_of(self.lane)
        args, kwargs = arguments()
        claims = {claim.limit: claim for claim in (rule.claim(args, kwargs) for rule in self.rules)}
        return tuple(claims.values())


class Limiting:
    """All limits of an app."""

    def __init__(self, app: Any) -> None:
        """Raises ``ConfigurationError`` when two limits of one name differ, or a queue's are none."""
        self._queue_limits = queue_limits(app)
        self._rules: dict[tuple[str, str], Rules | None] = {}
        self.declared: dict[str, Allowance] = {}
        """What is declared, by name."""
        for task in app.tasks.values():
            for limit in limits_of(task):
                self._declare(limit_name(limit, task.name), limit)
        for queue, limits in self._queue_limits.items():
            for limit in limits:
                self._declare(limit_name(limit, f"queue {queue}"), limit)

    def _declare(self, name: str, limit: Limit) -> None:
        allowed = limit.allowed()
        known = self.declared.setdefault(name, allowed)
        if known != allowed:
            raise ConfigurationError(
                f"Two limits have the name {name!r} and differ: {known} and {allowed}. Give each a name of its own, or make them one"
            )

    def __bool__(self) -> bool:
        return bool(self.declared)

    def rules(self, task: Any, queue: str) -> Rules | None:
        """What limits a task on a queue; ``None``: nothing."""
        try:
            return self._rules[task.name, queue]
        except KeyError:
            found = list(self._rules_of(task, queue))
            made = Rules(tuple(found), _common_lane(found)) if found else None
            self._rules[task.name, queue] = made
            return made

    def _rules_of(self, task: Any, queue: str) -> Iterator[Rule]:
        for limit in limits_of(task):
            yield make_rule(limit, task.name, task)
        for limit in self._queue_limits.get(queue, ()):
            yield make_rule(limit, f"queue {queue}", task)


def _common_lane(rules: Sequence[Rule]) -> str:
    if any(rule.key or not isinstance(rule.weight, int) for rule in rules):
        return ""
    return name_of([rule.claim((), {}) for rule in rules])


def queue_limits(app: Any) -> dict[str, tuple[Limit, ...]]:
    """``celeriac_queue_limits``: limits by the name of the queue."""
    given = app.conf.get("celeriac_queue_limits") or {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"celeriac_queue_limits is a mapping of names of queues to limits, not {given!r}")
    found = {}
    for queue, limits in given.items():
        several = tuple(limits) if isinstance(limits, (list, tuple)) else (limits,)
        if not all(isinstance(limit, Limit) for limit in several):
            raise ConfigurationError(
                f"celeriac_queue_limits[{queue!r}] is a celeriac.Limit or a list of them, not {limits!r}"
            )
        found[queue] = several
    return found


def check_limits(app: Any, broker: Broker) -> None:
    """Look at the limits of an app whose worker starts.

    Raises:
        ConfigurationError: two contradict each other, or one cannot be kept on this broker.
    """
    declared = Limiting(app).declared
    for name in sorted(declared)[:1]:
        connect.check_key_values(app, f"The limit {name!r}")
    for name, allowed in declared.items():
        if allowed.concurrency is not None and not broker.knows_owners:
            raise ConfigurationError(
                f"The limit {name!r} has a concurrency, and the broker at {broker.url} cannot tell which workers are alive, so that "
                "a permit of one that was killed would never come back. Use Redis, RabbitMQ, PostgreSQL or SQLite, or a rate"
            )


class Door:
    """Where a worker process sends limited messages to their lanes."""

    def __init__(self, limiting: Limiting, gate: Gate, *, lanes: bool) -> None:
        """``lanes``: whether the broker has them.  Where it has not, a message asks when it is about to run."""
        self._limiting = limiting
        self._gate = gate
        self._lanes = lanes

    def keep_out(self, job: TaskJob, permit: Permit | None, arguments: Arguments) -> Outcome | None:
        """The outcome of a message that has to go into a lane; ``None`` when it may go on.  Raises as :meth:`Rule.claim` does."""
        if permit is not None:
            job.permit = permit
            return None
        rules = self._limiting.rules(job.plan.task, job.delivery.queue)
        if rules is None:
            return None
        if self._lanes:
            return parked_in(job, rules.lane_of(arguments))
        job.permit = self._gate.apply(rules.claims_of(arguments))
        return None


def parked_in(job: TaskJob, lane: str) -> Outcome:
    """The outcome of a message that goes into a lane."""
    message = Message(job.delivery.queue, job.delivery.raw, priority_of(job.envelope), lane=lane)
    return Outcome(job.delivery, State.SNOOZED, publish=(message,))


def turned_away(job: TaskJob) -> Outcome | None:
    """What becomes of a message whose permit does not let it start now; ``None`` when it may start."""
    permit = job.permit
    if permit is None or permit.may_start():
        return None
    if permit.lane:
        return parked_in(job, permit.lane)
    return parked(job, time.time() + permit.wait)
