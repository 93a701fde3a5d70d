"""Reads deliveries: from bytes to the job of a known task, and to its arguments."""

from __future__ import annotations

from typing import Any

from kombu.serialization import prepare_accept_content

from celeriac.compat import context
from celeriac.compat.declaring import policies_of
from celeriac.compat.envelope import decode_body
from celeriac.compat.jobs import Plan, TaskJob
from celeriac.compat.patterns.limits import limits_cluster
from celeriac.compat.rate_limits import interval_of
from celeriac.compat.wrapped import tracer_of
from celeriac.message import Delivery


class NotATask(ValueError):
    """A message that is no task message."""


class UnknownTask(LookupError):
    """A message for a task that this worker does not know."""


class Reader:
    """Knows the tasks of one app, as one worker runs them."""

    def __init__(self, app: Any, soft_limit: float | None, time_limit: float | None, *, limited: bool) -> None:
        """``soft_limit`` and ``time_limit``: the worker's own, in seconds.  ``limited``: whether tasks' rate limits apply."""
        self._app = app
        self._limits = (soft_limit, time_limit)
        self._limited = limited
        self._plans: dict[str, Plan] = {}
        self._accept = set(prepare_accept_content(app.conf.accept_content))

    def forget_plans(self) -> None:
        """Work out anew what running a task takes."""
        self._plans.clear()

    def job(self, delivery: Delivery, envelope: dict[str, Any], headers: dict[str, Any]) -> TaskJob:
        """The job that a delivery is.

        Raises:
            UnknownTask: the worker has no such task.
            NotATask: there is no task id.
        """
        name = headers["task"]
        plan = self._plans.get(name)
        if plan is None:
            plan = self._plan(name)
        if not isinstance(headers.get("id"), str):
            raise NotATask("the message has no task id")
        return TaskJob(delivery, envelope, headers, plan)

    def _plan(self, name: Any) -> Plan:
        task = self._app.tasks.get(name) if isinstance(name, str) else None
        if task is None:
            raise UnknownTask(f"Received unregistered task of type {name!r}; is its module imported?")
        tracer = tracer_of(self._app, task)  # first: it may put something in place of the body
        context.adopt(task)
        plan = Plan(task, *self._limits)
        plan.tracer = None if plan.is_async else tracer
        plan.policies = policies_of(self._app, task)
        if self._limited and task.rate_limit and not limits_cluster(task):
            plan.interval = interval_of(task.rate_limit)
        self._plans[name] = plan
        return plan

    def first_protocol(self, envelope: dict[str, Any]) -> dict[str, Any]:
        """The headers of a message whose body has everything (Celery's protocol 1).  Raises ``NotATask``."""
        body = decode_body(envelope, self._accept)
        if not isinstance(body, dict) or "task" not in body:
            raise NotATask("neither the headers nor the body name a task")
        envelope["headers"] = headers = dict(envelope.get("headers") or {})
        names = ("task", "id", "retries", "eta", "expires", "timelimit", "utc")
        headers.update({name: body[name] for name in names if name in body})
        headers["group"] = body.get("taskset")
        headers["root_id"] = body.get("id")
        return headers

    def body(self, job: TaskJob) -> tuple[Any, Any, Any]:
        """Arguments, keyword arguments and what follows the task.  Raises ``NotATask``, and what decoding raises."""
        body = decode_body(job.envelope, self._accept)
        if type(body) is dict and "task" in body:
            args, kwargs, embed = body.get("args"), body.get("kwargs"), body
        else:
            if not isinstance(body, (list, tuple)) or len(body) != 3:
                raise NotATask(f"the body is not (args, kwargs, options) but {type(body).__name__}")
            args, kwargs, embed = body
        if type(args) is list and type(kwargs) is dict:
            return args, kwargs, embed
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise NotATask("the arguments are not a list and a mapping")
        return args, kwargs, embed
