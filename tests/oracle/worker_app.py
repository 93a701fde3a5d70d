"""The app that both kinds of worker run (``-A tests.oracle.worker_app``), with a receiver on each signal of tasks."""

from __future__ import annotations

import os
from typing import Any

import celery
from celery import signals

from tests.oracle.app import build
from tests.oracle.notebook import STORE_URL, note


def _on(event: str, kwargs: Any, task_id: str, retries: Any, **details: Any) -> None:
    if isinstance(kwargs, dict) and "tag" in kwargs:
        note(kwargs["tag"], event, kwargs["label"], task_id, retries, **details)


@signals.task_received.connect
def on_received(sender, request, **_):
    headers = request.request_dict
    _on("task_received", request.kwargs, request.id, headers.get("retries"), name=request.name)


@signals.task_prerun.connect
def on_prerun(sender, task_id, task, args, kwargs, **_):
    _on("task_prerun", kwargs, task_id, task.request.retries, name=task.name, args=args)


@signals.task_postrun.connect
def on_postrun(sender, task_id, task, kwargs, state, **details):
    _on("task_postrun", kwargs, task_id, task.request.retries, retval=details["retval"], state=state)


@signals.task_success.connect
def on_success(sender, result, runtime, **_):
    _on("task_success", sender.request.kwargs, sender.request.id, sender.request.retries, result=result)


@signals.task_failure.connect
def on_failure(sender, task_id, exception, args, kwargs, **details):
    retries = sender.request.retries
    _on("task_failure", kwargs, task_id, retries, exception=exception, args=args, einfo=type(details["einfo"]).__name__)


@signals.task_retry.connect
def on_retry(sender, request, reason, einfo, **_):
    _on("task_retry", request.kwargs, request.id, request.retries, reason=str(reason), einfo=type(einfo).__name__)


@signals.task_revoked.connect
def on_revoked(sender, request, terminated, signum, expired, **_):
    details = {"terminated": terminated, "signum": signum, "expired": expired}
    _on("task_revoked", request.kwargs, request.id, None, **details)


@signals.task_internal_error.connect
def on_internal_error(sender, task_id, args, kwargs, exception, **_):
    _on("task_internal_error", kwargs, task_id, None, exception=exception)


@signals.before_task_publish.connect
def on_publish(sender, body, routing_key, headers, **_):
    _on("before_task_publish", body[1], headers["id"], headers["retries"], name=sender, routing_key=routing_key)


@signals.after_task_publish.connect
def on_published(sender, body, routing_key, headers, **_):
    _on("after_task_publish", body[1], headers["id"], headers["retries"], name=sender, routing_key=routing_key)


app = build(os.environ[STORE_URL], celery.Celery).app
app.set_current()
app.set_default()
