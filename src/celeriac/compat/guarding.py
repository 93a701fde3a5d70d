"""Runs a task inside its policies (:mod:`celeriac.policy`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from celeriac.compat.jobs import Request, TaskJob
from celeriac.errors import StoreError
from celeriac.outcome import Outcome
from celeriac.policy import Call, Policy, Postpone, Verdict

logger = logging.getLogger("celeriac.policies")

STORE_AWAY_SECONDS = 1.0
"""How long a task waits whose policies cannot reach their store."""


class Decoded(NamedTuple):
    """What policies made of the arguments that were sent."""

    sent_args: Any
    sent_kwargs: Any
    args: Any
    kwargs: Any


class Guard:
    """The policies of one run."""

    def __init__(self, policies: Sequence[Policy], job: TaskJob, request: Request) -> None:
        self._policies = policies
        self._entered: list[Policy] = []
        self._request = request
        self._job = job
        self.call = call_of(job, request)

    def enter(self) -> Verdict | None:
        """Enter the policies until one has a verdict; keep the arguments that they made of the sent ones for the body."""
        for policy in self._policies:
            try:
                verdict = policy.enter(self.call)
            except StoreError as error:
                verdict = Postpone(STORE_AWAY_SECONDS, str(error))
            if verdict is not None:
                return verdict
            self._entered.append(policy)
        call, request = self.call, self._request
        request.args, request.kwargs = call.sent_args, call.sent_kwargs
        if call.args is not request.args or call.kwargs is not request.kwargs:
            # Beside what was sent, which is what a retry and the handlers are to see.
            request.__dict__["decoded"] = Decoded(request.args, request.kwargs, call.args, call.kwargs)
        return None

    def leave(self, outcome: Outcome) -> Outcome:
        """Leave those that were entered, the last one first."""
        self.call.value = self._job.value
        while self._entered:
            policy = self._entered.pop()
            try:
                outcome = policy.leave(self.call, outcome, self._job.error)
            except Exception:
                logger.exception("A policy of %s[%s] failed after the run", self.call.task, self.call.task_id)
        return outcome


def call_of(job: TaskJob, request: Request) -> Call:
    """A job as its policies see it."""
    return Call(
        task=job.name, task_id=job.task_id, args=request.args, kwargs=request.kwargs, queue=job.delivery.queue,
        headers=job.headers, attempt=job.headers.get("retries") or 0, redelivered=job.redelivered,
        sent_args=request.args, sent_kwargs=request.kwargs,
    )  # fmt: skip


def abandoned(job: TaskJob, request: Request, outcome: Outcome) -> Outcome:
    """An outcome that was not made inside the policies, with what frees what the run may have held."""
    call = call_of(job, request)
    for policy in reversed(job.plan.policies):
        try:
            outcome = policy.abandon(call, outcome)
        except Exception:
            logger.exception("A policy of %s[%s] could not free what the run held", job.name, job.task_id)
    return outcome
