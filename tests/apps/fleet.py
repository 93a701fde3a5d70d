"""The app of a group of workers of both kinds: a plain Celery app, whose worker is the one of the command that starts it."""

from __future__ import annotations

import json
import os
import time

import celery

from tests.apps.survival import record

app = celery.Celery("fleet", broker=os.environ.get("TEST_BROKER"), backend=os.environ.get("TEST_BACKEND"))
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))


@app.task(acks_late=True, reject_on_worker_lost=True)
def work(key, seconds=0.01):
    time.sleep(seconds)
    record("ran", key)
    return 1


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True, max_retries=3)
def retried(self, key):
    if self.request.retries < 2:
        raise self.retry(countdown=0.2 * self.request.retries)
    record("ran", key)
    return 1


@app.task(acks_late=True, reject_on_worker_lost=True)
def finish(values, key):
    record("finished", key)
    return sum(values)


@app.task
def pid():
    return os.getppid()
