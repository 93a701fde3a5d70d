"""Celery."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from benchmarks.apps import celery_tasks

app = celery_tasks.make_app(Celery)


def send_each(task: str, arguments: Iterable[tuple[Any, ...]], countdown: float | None = None) -> None:
    celery_tasks.send_each(app, task, arguments, countdown)


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    """One connection for all: Celery has nothing that sends several in one round trip."""
    registered = app.tasks[task]
    with app.producer_pool.acquire(block=True) as producer:
        for args in arguments:
            registered.apply_async(args, producer=producer)
