"""Huey: a message is gone once a worker has read it (at most once)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from huey import RedisHuey

from benchmarks.apps import RESULTS, URL
from benchmarks.bodies import BODIES

huey = RedisHuey("bench", url=URL, results=RESULTS, store_none=RESULTS)
TASKS = {name: huey.task(name=name)(body) for name, body in BODIES.items()}


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    call = TASKS[task]
    for args in arguments:
        call(*args)


# Huey has nothing that sends several in one round trip.
send_many = send_each
