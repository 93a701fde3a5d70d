"""RQ."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.apps import RESULTS, URL
from benchmarks.bodies import BODIES

BATCH = 1000
RESULT_TTL = 500 if RESULTS else 0
"""Seconds.  500 is RQ's default, 0 deletes the job at once."""

queue = Queue("bench", connection=Redis.from_url(URL))


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    body = BODIES[task]
    for args in arguments:
        queue.enqueue(body, args=args, result_ttl=RESULT_TTL)


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    body = BODIES[task]
    rest = iter(arguments)
    while some := list(islice(rest, BATCH)):
        queue.enqueue_many([Queue.prepare_data(body, args=args, result_ttl=RESULT_TTL) for args in some])
