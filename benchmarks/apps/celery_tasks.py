"""The same Celery app for Celery and for Celeriac: only the class differs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.apps import QUEUE_TYPE, RESULT_URL, RESULTS, URL
from benchmarks.bodies import BODIES


def make_app(celery_class: Any, **settings: Any) -> Any:
    """An app with all bodies as tasks, acknowledged late."""
    app = celery_class("bench", broker=URL, backend=RESULT_URL if RESULTS else None)
    app.conf.update(task_acks_late=True, task_ignore_result=not RESULTS, task_default_queue_type=QUEUE_TYPE, **settings)
    for name, body in BODIES.items():
        app.task(body, name=name)
    return app


def send_each(app: Any, task: str, arguments: Iterable[tuple[Any, ...]], countdown: float | None = None) -> None:
    """One message after the other, with Celery's own call."""
    registered = app.tasks[task]
    if countdown is None:
        for args in arguments:
            registered.delay(*args)
    else:
        for args in arguments:
            registered.apply_async(args, countdown=countdown)
