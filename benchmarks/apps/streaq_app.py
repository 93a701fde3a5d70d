"""streaQ."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

from streaq import Worker

from benchmarks.apps import RESULTS, URL, loops
from benchmarks.bodies import BODIES

BATCH = 1000
TTL = 300 if RESULTS else 0
"""Seconds.  300 is streaQ's default, 0 keeps nothing."""

worker: Any = Worker(redis_url=URL, queue_name="bench", concurrency=32, anyio_kwargs={"use_uvloop": True})


def _task(name: str, body: Any) -> Any:
    async def run(*args: Any) -> Any:
        return body(*args)

    return worker.task(name=name, ttl=TTL, silent=True)(run)


TASKS = {name: _task(name, body) for name, body in BODIES.items()}


@lru_cache
def _connect() -> None:
    loops.run(worker.__aenter__())


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        for args in arguments:
            await TASKS[task].enqueue(*args)

    _connect()
    loops.run(send())


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        rest = iter(arguments)
        while some := list(islice(rest, BATCH)):
            await worker.enqueue_many([TASKS[task].enqueue(*args) for args in some])

    _connect()
    loops.run(send())
