"""``retry_on_worker_lost``: a task whose process died is sent again as a retry."""

from __future__ import annotations

import logging

from celery.exceptions import WorkerLostError

from celeriac.compat.collect import Collector, collected_outcome, collecting
from celeriac.compat.custom_request import exception_info
from celeriac.compat.jobs import Request, TaskJob
from celeriac.outcome import Outcome, State

logger = logging.getLogger("celery.worker.request")


def retried_after_loss(job: TaskJob, request: Request, error: WorkerLostError) -> Outcome | None:
    """The retry, with what is to be its reason; ``None`` when there is none left, or it cannot be made."""
    task = job.plan.task
    retries = request.retries or 0
    if task.max_retries is not None and retries >= task.max_retries:
        return None
    try:
        with collecting(Collector()) as collector:
            task.signature_from_request(request, countdown=task.default_retry_delay, retries=retries + 1).apply_async()
            if job.plan.store_errors or not (request.ignore_result or job.plan.ignore_result):
                task.backend.mark_as_retry(job.task_id, error, exception_info(error).traceback, request=request)
    except Exception:
        logger.exception("Failed to retry %s[%s] after its process died", job.name, job.task_id)
        return None
    logger.warning("Task %s[%s] retry: %s (retry %d)", job.name, job.task_id, error, retries + 1)
    return collected_outcome(Outcome(job.delivery, State.RETRYING), collector)
