"""The limit: a bare loop that leases, decodes Celery's envelope, calls a plain function and settles.

No worker that gives each message this care can be faster; whatever more it does is what it costs.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import Any

from benchmarks.apps import RESULTS, URL
from benchmarks.bodies import BODIES
from celeriac.backends.redis import RedisBackend
from celeriac.brokers.redis import RedisBroker, RedisOptions
from celeriac.message import Delivery
from celeriac.outcome import Outcome, Result, State

BATCH = 100
QUEUES = ("celery",)
LEASE_SECONDS = 3600.0
WAIT_SECONDS = 1.0

Finish = Callable[[Delivery, str, Any], Outcome]


def run(delivery: Delivery, finish: Finish) -> Outcome:
    envelope = json.loads(delivery.raw)
    args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    headers = envelope["headers"]
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


def main() -> None:
    options = RedisOptions(URL)
    broker = RedisBroker(options, RedisBackend(options).keys if RESULTS else None)
    finish = finish_with_result if RESULTS else finish_without_result
    owner = f"limit-{os.getpid()}"
    broker.register(owner, QUEUES, LEASE_SECONDS)
    outcomes: list[Outcome] = []
    while True:
        _, deliveries = broker.turn(owner, outcomes, QUEUES, BATCH)
        if not deliveries and not outcomes:
            broker.wait(QUEUES, WAIT_SECONDS)
        outcomes = [run(delivery, finish) for delivery in deliveries]


if __name__ == "__main__":
    main()
