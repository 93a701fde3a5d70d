"""Celeriac: the Celery app with one import changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.apps import celery_tasks
from celeriac import Celery

app = celery_tasks.make_app(Celery)


def send_each(task: str, arguments: Iterable[tuple[Any, ...]], countdown: float | None = None) -> None:
    celery_tasks.send_each(app, task, arguments, countdown)


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    registered = app.tasks[task]
    with app.batch():
        for args in arguments:
            registered.delay(*args)
