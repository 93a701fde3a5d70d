"""A stock Celery app whose results go to whatever TEST_BACKEND says."""

from __future__ import annotations

import os

import celery

app = celery.Celery("stock", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])
app.conf.update(result_extended=True, task_track_started=True, broker_connection_retry_on_startup=True)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise KeyError("missing")
