"""The app of the tests of Celery's surface: rate limits, exchanges, custom requests, steps and commands."""

from __future__ import annotations

import sys

from celery import shared_task
from celery.utils.log import get_task_logger
from kombu import Exchange, Queue
from kombu.common import Broadcast

from tests.apps.survival import app, record, wait_for_file

app.conf.worker_enable_remote_control = True
app.conf.task_queues = (
    Queue("celery"),
    Queue("errors", Exchange("logs", type="topic"), routing_key="*.error"),
    Broadcast("news"),
)

__all__ = ["app"]

logger = get_task_logger(__name__)


@shared_task
def note(key):
    record("ran", key)
    return key


@shared_task
def hold(key, gate):
    """Run until the test opens the gate."""
    record("started", key)
    wait_for_file(gate)
    record("ran", key)
    return key


@shared_task(rate_limit="2/s")
def seldom(key):
    record("ran", key)
    return key


@shared_task(rate_limit="50/s")
def often(key):
    record("ran", key)
    return key


@shared_task
def fail(text):
    raise ValueError(text)


@shared_task
def speak(key):
    logger.info("logged %s", key)
    sys.stdout.write(f"printed {key}\n")
    return key
