"""An app on RabbitMQ with queues of all kinds, for Celeriac's workers and for stock ones (``TEST_STOCK``)."""

from __future__ import annotations

import json
import os

import celery
from celery import shared_task
from kombu import Exchange, Queue
from kombu.common import Broadcast

import celeriac
from tests.apps.survival import record

MEDIA = Exchange("media", type="topic")
LABELLED = Exchange("labelled", type="headers")

QUEUES = [
    Queue("celery", Exchange("celery", type="direct"), "celery"),
    Queue("images", MEDIA, "media.image.#"),
    Queue("all-media", MEDIA, "media.#"),
    Queue("red", LABELLED, binding_arguments={"x-match": "all", "colour": "red"}),
    Queue("urgent", queue_arguments={"x-max-priority": 9}),
    Queue("short", queue_arguments={"x-max-length": 2, "x-overflow": "reject-publish"}),
    Queue("quorum", Exchange("quorum", type="topic"), "quorum", queue_arguments={"x-queue-type": "quorum"}),
    Broadcast("everybody", queue=os.environ.get("TEST_BROADCAST")),
]


def make_app(stock, broker, backend, **conf):
    """The app, of either kind."""
    kind = celery.Celery if stock else celeriac.Celery
    made = kind("rabbit", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(task_queues=QUEUES, worker_enable_remote_control=False, **conf)
    return made


app = make_app(
    os.environ.get("TEST_STOCK"),
    os.environ.get("TEST_BROKER", "amqp://"),
    os.environ.get("TEST_BACKEND"),
    **json.loads(os.environ.get("TEST_CONF", "{}")),
)
app.set_current()


@shared_task(bind=True)
def tell(self, key):
    """Tell what a task sees of its message."""
    record("ran", key)
    request = self.request
    return {
        "key": key,
        "worker": request.hostname,
        "priority": (request.delivery_info or {}).get("priority"),
        "routing_key": (request.delivery_info or {}).get("routing_key"),
        "colour": (request.headers or {}).get("colour"),
        "correlation_id": request.correlation_id,
        "retries": request.retries,
    }


@shared_task(bind=True, default_retry_delay=0.2)
def fail_once(self, key):
    """Succeed at the second attempt."""
    record("ran", key)
    if not self.request.retries:
        raise self.retry()
    return self.request.hostname


@shared_task
def add(one, two):
    return one + two
