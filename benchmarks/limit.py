"""The limit: a bare loop that leases, decodes Celery's envelope, calls a plain function and settles.

No worker that gives each message this care can be faster; whatever more it does is what it costs.
"""

from __future__ import annotations

import base64
import json
import os
import select
from collections.abc import Callable
from typing import Any

from benchmarks.apps import RESULTS, URL
from benchmarks.bodies import BODIES
from celeriac.backends.redis import RedisBackend
from celeriac.broker import Broker
from celeriac.brokers.postgres import PostgresBroker
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.redis import RedisBroker, RedisOptions
from celeriac.compat import parcel
from celeriac.compat.connect_rabbitmq import rabbit_options
from celeriac.message import Delivery
from celeriac.outcome import Outcome, Result, State
from celeriac.postgres_store import PostgresOptions

BATCH = 100
QUEUES = ("celery",)
LEASE_SECONDS = 3600.0
WAIT_SECONDS = 1.0

Finish = Callable[[Delivery, str, Any], Outcome]


def open_broker() -> Broker:
    """The broker that the URL names."""
    if URL.startswith("postgresql"):
        return PostgresBroker(PostgresOptions(URL))
    if URL.startswith("amqp"):
        return RabbitBroker(rabbit_options(URL))
    options = RedisOptions(URL)
    return RedisBroker(options, RedisBackend(options).keys if RESULTS else None)


def decode(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Headers and body."""
    if parcel.is_parcel(raw):
        envelope = parcel.decode(raw)
        return envelope["headers"], envelope["body"]
    envelope = json.loads(raw)
    return envelope["headers"], base64.b64decode(envelope["body"])


def run(delivery: Delivery, finish: Finish) -> Outcome:
    headers, body = decode(delivery.raw)
    args, kwargs, _ = json.loads(body)
    return finish(delivery, headers["id"], BODIES[headers["task"]](*args, **kwargs))


def finish_without_result(delivery: Delivery, _task_id: str, _value: Any) -> Outcome:
    return Outcome(delivery, State.SUCCEEDED)


def finish_with_result(delivery: Delivery, task_id: str, value: Any) -> Outcome:
    record = {
        "status": "SUCCESS",
        "result": value,
        "traceback": None,
        "children": [],
        "date_done": None,
        "task_id": task_id,
    }
    return Outcome(delivery, State.SUCCEEDED, (Result(task_id, "SUCCESS", json.dumps(record).encode()),))


def wait(broker: Broker, owner: str) -> None:
    if broker.pushes:
        fd, longest = broker.listen(owner, QUEUES, BATCH, quiet=False)
        select.select([] if fd is None else [fd], [], [], min(longest, WAIT_SECONDS))
    else:
        broker.wait(QUEUES, WAIT_SECONDS)


def main() -> None:
    broker = open_broker()
    finish = finish_with_result if RESULTS else finish_without_result
    owner = f"limit-{os.getpid()}"
    broker.register(owner, QUEUES, LEASE_SECONDS)
    if broker.pushes:
        broker.subscribe(owner, lambda: None)
    outcomes: list[Outcome] = []
    while True:
        _, deliveries = broker.turn(owner, outcomes, QUEUES, BATCH)
        if not deliveries and not outcomes:
            wait(broker, owner)
        outcomes = [run(delivery, finish) for delivery in deliveries]


if __name__ == "__main__":
    main()
