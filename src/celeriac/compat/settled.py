"""Redeliveries of tasks that have a final result already: the body is not run, and what follows it is sent."""

from __future__ import annotations

import logging
import time
from typing import Any

from celeriac.compat import followups
from celeriac.compat.away import telling_away
from celeriac.compat.collect import Collector, collected_outcome, collecting
from celeriac.compat.jobs import Request, TaskJob
from celeriac.compat.verdicts import Verdicts, ignores_result
from celeriac.errors import StoreUnavailable
from celeriac.outcome import Outcome, State

logger = logging.getLogger("celery.app.trace")

AWAY_SECONDS = 0.5
"""Pause before a message goes back because it cannot be known whether its task has run: it may come again at once."""

FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


class Settled:
    """Asks the result store of one app.

    Args:
        app: whose tasks.
        verdicts: of the same app.
        stores_apart: broker and results are not written together, so a redelivery may find a final result.
    """

    def __init__(self, app: Any, verdicts: Verdicts, *, stores_apart: bool) -> None:
        self._app = app
        self._verdicts = verdicts
        self._stores_apart = stores_apart
        self._deduplicate = bool(app.conf.worker_deduplicate_successful_tasks)
        self._inherit_priority = bool(app.conf.task_inherit_parent_priority)

    def request(self, job: TaskJob, request: Request) -> Request | Outcome:
        """The request of a redelivery if it is to run, else what becomes of it."""
        if not (self._stores_apart or (self._deduplicate and job.plan.late)):
            return request
        try:
            return self._before(job, request) or request
        except StoreUnavailable as error:  # to run it might be to run it twice, and to fail it would be for good
            logger.warning("%s[%s] goes back: %s", job.name, job.task_id, error)
            time.sleep(AWAY_SECONDS)
            return Outcome(job.delivery, State.INTERRUPTED, requeue=job.delivery.raw)

    def found(self, job: TaskJob) -> Outcome | None:
        """The outcome of a task whose process died after its result was stored, in a store of its own, and before anything else.

        Raises:
            StoreUnavailable: a task that has succeeded must not be taken for one that was lost; ask again later.
        """
        if not self._stores_apart:
            return None
        try:
            return self._before(job, self._verdicts.request_of(job))
        except StoreUnavailable:
            raise
        except Exception:
            logger.exception("Whether %s[%s] had finished could not be found out", job.name, job.task_id)
            return None

    def _before(self, job: TaskJob, request: Request) -> Outcome | None:
        """What follows a task whose final result is stored may not be sent yet: that is done."""
        task = job.plan.task
        if ignores_result(job.plan, request):
            return None
        with telling_away(task.backend, "Whether it has a result already cannot be found out"):
            meta = _meta(task.backend, job.task_id)
        if meta["status"] not in FINAL:
            return None
        with collecting(Collector()) as collector:
            if meta["status"] == "SUCCESS":
                followups.dispatch(self._app, meta["result"], request, inherit_priority=self._inherit_priority)
                if request.chord:
                    task.backend.on_chord_part_return(request, "SUCCESS", meta["result"])
            else:
                task.backend.mark_as_failure(
                    job.task_id, meta["result"], meta.get("traceback"), request=request, store_result=False
                )
        return collected_outcome(Outcome(job.delivery, State.IGNORED), collector)


def _meta(backend: Any, task_id: str) -> dict[str, Any]:
    """A task's record, asked for once: with ``result_backend_always_retry`` Celery's way does not come back while the store is away, with a
    warning each time, and the engine asks again later by itself.
    """
    ask = getattr(backend, "_get_task_meta_for", None)
    meta: dict[str, Any] = ask(task_id) if ask is not None else backend.get_task_meta(task_id, cache=False)
    return meta
