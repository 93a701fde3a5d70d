"""Celery's worker-side request: what receivers of ``task_received`` and ``task_revoked`` are given."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.request import Request
from kombu import Message

from celeriac.compat.jobs import TaskJob

logger = logging.getLogger("celery.worker.request")


def announce(signal: Any, sender: Any, app: Any, job: TaskJob, body: Any, hostname: str, **details: Any) -> None:
    """Send a signal about a job that does not run yet, or not at all.  Costs nothing without a receiver."""
    if not signal.receivers:
        return
    try:
        request = worker_request(app, job, body, hostname)
    except Exception:  # an app may have a Request class of its own
        logger.exception("No request could be made of %s[%s]; a signal is not sent", job.name, job.task_id)
    else:
        signal.send(sender=sender, request=request, **details)


def worker_request(app: Any, job: TaskJob, body: tuple[Any, Any, Any], hostname: str) -> Any:
    """A job as an object of its task's ``Request`` class.  Whatever is done to it, the engine does not look at it."""
    task = job.plan.task
    message = kombu_message(job.envelope, job.headers)
    kind = job.plan.request_class or Request
    return kind(message, app=app, hostname=hostname, task=task, headers=job.headers, body=body, decoded=True)


def kombu_message(envelope: dict[str, Any], headers: dict[str, Any]) -> Message:
    """An envelope as a message of kombu's."""
    properties = envelope["properties"]
    return Message(
        body=envelope.get("body"),
        delivery_tag=properties.get("delivery_tag"),
        content_type=envelope.get("content-type"),
        content_encoding=envelope.get("content-encoding"),
        delivery_info=properties.get("delivery_info") or {},
        properties=properties,
        headers=headers,
    )
