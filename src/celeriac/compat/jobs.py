"""Decoding: from a delivery to a job, with all that is known about its task worked out once."""

from __future__ import annotations

import inspect
from typing import Any

from celery.app.task import Context
from celery.app.task import Task as BaseTask
from celery.utils.objects import mro_lookup

from celeriac.compat.custom_request import request_class
from celeriac.compat.wrapped import Tracer
from celeriac.message import (
    ADMITTED_HEADER,
    AGAIN_HEADER,
    COPY_HEADER,
    CRASHES_HEADER,
    DELAY_HEADERS,
    SENT_HEADER,
    Delivery,
)
from celeriac.policies.gate import Permit
from celeriac.policy import Policy


def has_own(task: Any, name: str) -> bool:
    """Whether a task's class overrides one of Celery's methods."""
    return mro_lookup(type(task), name, stop={BaseTask, object}, monkey_patched=["celery.app.task"]) is not None


def is_coroutine_task(task: Any) -> bool:
    """Whether the body is ``async def``.  Celery binds a function as ``run``; autoretry wraps it once more."""
    run = getattr(task, "_orig_run", None) or task.run
    return inspect.iscoroutinefunction(inspect.unwrap(run))


class Plan:
    """What running a task takes, worked out once per task and process."""

    __slots__ = (
        "ack_failures",
        "ack_timeouts",
        "after_return",
        "before_start",
        "fun",
        "ignore_result",
        "interval",
        "is_async",
        "late",
        "name",
        "on_success",
        "own_backend",
        "policies",
        "request_class",
        "soft_limit",
        "store_errors",
        "task",
        "time_limit",
        "tracer",
        "track_started",
    )

    def __init__(self, task: Any, soft_limit: float | None, time_limit: float | None) -> None:
        """``soft_limit`` and ``time_limit``: the worker's own, in seconds."""
        self.task = task
        self.name: str = task.name
        # Not has_own(): in a worker Celery patches the method of its own class.
        self.fun = task.run if type(task).__call__ is BaseTask.__call__ else task
        self.is_async = is_coroutine_task(task)
        self.late = bool(task.acks_late)
        # Celery 5.6 has one option for both.
        self.ack_failures = getattr(task, "acks_on_failure", task.acks_on_failure_or_timeout) is not False
        self.ack_timeouts = getattr(task, "acks_on_timeout", task.acks_on_failure_or_timeout) is not False
        self.ignore_result = bool(task.ignore_result)
        self.store_errors = bool(task.store_errors_even_if_ignored)
        self.request_class = request_class(task)
        self.own_backend = task._backend is not None or has_own(task, "backend")
        """Whether its results may be kept in another store than the app's."""
        self.track_started = bool(task.track_started)
        self.tracer: Tracer | None = None
        """What others wrap around its runs (see :mod:`celeriac.compat.wrapped`)."""
        self.interval = 0.0
        """Seconds between two starts in this worker; 0 for no limit.  Set where limits are on."""
        self.soft_limit = float(task.soft_time_limit or soft_limit or 0)
        self.time_limit = float(task.time_limit or time_limit or 0)
        self.before_start = task.before_start if has_own(task, "before_start") else None
        self.on_success = task.on_success if has_own(task, "on_success") else None
        self.after_return = task.after_return if has_own(task, "after_return") else None
        self.policies: tuple[Policy, ...] = ()
        """What wraps each run."""


NOT_SENT = frozenset(
    {
        "celeriac_work",
        "decoded",
        "followed",
        "held",
        "recorded",
        "x-delivery-count",
        SENT_HEADER,
        CRASHES_HEADER,
        ADMITTED_HEADER,
        AGAIN_HEADER,
        COPY_HEADER,
        *DELAY_HEADERS,
    }
)
"""Parts of a request that are not custom headers of its sender."""


class Request(Context):
    """Celery's request context, made without looking at each of its fields."""

    @property
    def headers(self) -> Any:
        """Headers that the sender added to those of the protocol."""
        own = self.__dict__
        found = own.get("headers")
        if found is None:
            sent = {name: value for name, value in own.items() if name not in NOT_SENT}
            found = own["headers"] = self._get_custom_headers(sent)
        return found

    @headers.setter
    def headers(self, value: Any) -> None:
        self.__dict__["headers"] = value


class TaskJob:
    """One delivery of a known task (see :class:`celeriac.pool.Job`)."""

    __slots__ = (
        "delivery",
        "envelope",
        "error",
        "hard_limit",
        "headers",
        "interrupted",
        "is_async",
        "is_late",
        "is_unrecorded",
        "name",
        "permit",
        "plan",
        "redelivered",
        "request",
        "soft_limit",
        "started_at",
        "task_id",
        "value",
        "waited",
    )

    def __init__(self, delivery: Delivery, envelope: dict[str, Any], headers: dict[str, Any], plan: Plan) -> None:
        self.delivery = delivery
        self.envelope = envelope
        self.headers = headers
        self.plan = plan
        self.name = plan.name
        self.is_async = plan.is_async
        self.is_late = plan.late
        self.task_id: str = headers["id"]
        self.interrupted: BaseException | None = None
        self.permit: Permit | None = None
        self.error: BaseException | None = None
        """What the body raised, once it has."""
        self.is_unrecorded = False
        """Whether its failure could not be stored."""
        self.value: Any = None
        """What the body returned, once it has; kept for policies."""
        self.request: Any = None
        """An object of the app's own ``Request`` class, where it has one."""
        self.started_at = 0.0
        self.waited: float | None = None
        info = envelope["properties"].get("delivery_info")
        self.redelivered = bool((info and info.get("redelivered")) or CRASHES_HEADER in headers)
        limits = headers.get("timelimit")
        if limits and (limits[0] is not None or limits[1] is not None):
            self.hard_limit = float(limits[0] or plan.time_limit)
            self.soft_limit = float(limits[1] or plan.soft_limit)
        else:
            self.hard_limit, self.soft_limit = plan.time_limit, plan.soft_limit

    def describe(self) -> dict[str, Any]:
        """The task as Celery's ``inspect active`` shows it, and its stamps."""
        info = self.envelope["properties"].get("delivery_info") or {}
        return {
            "id": self.task_id,
            "name": self.headers.get("shadow") or self.name,
            "args": self.headers.get("argsrepr"),
            "kwargs": self.headers.get("kwargsrepr"),
            "type": self.name,
            "delivery_info": {
                "exchange": info.get("exchange"),
                "routing_key": info.get("routing_key"),
                "priority": self.envelope["properties"].get("priority"),
                "redelivered": bool(info.get("redelivered")),
            },
            "acknowledged": not self.plan.late,
            "stamps": self.headers.get("stamps"),
        }
