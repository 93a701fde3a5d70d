"""Taskiq on Redis streams, with acknowledgement; ``BENCH_VARIANT=list`` on a list, without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.apps import RESULTS, URL, loops
from benchmarks.bodies import BODIES

CONCURRENT_SENDS = 100


def _make_broker() -> Any:
    if os.environ.get("BENCH_VARIANT") == "list":
        return ListQueueBroker(url=URL)
    # "0": the group gets what was sent before it existed, too.
    return RedisStreamBroker(url=URL, consumer_id="0")


broker = _make_broker()
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(redis_url=URL, result_ex_time=3600))


def _register(name: str, body: Any) -> Any:
    async def run(*args: Any) -> Any:
        return body(*args)

    return broker.register_task(run, task_name=name)


TASKS = {name: _register(name, body) for name, body in BODIES.items()}


@lru_cache
def _start() -> None:
    loops.run(broker.startup())


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        for args in arguments:
            await TASKS[task].kiq(*args)

    _start()
    loops.run(send())


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    """Many at a time over several connections: Taskiq has nothing that sends several in one round trip."""

    async def send() -> None:
        rest = iter(arguments)
        while some := list(islice(rest, CONCURRENT_SENDS)):
            await asyncio.gather(*(TASKS[task].kiq(*args) for args in some))

    _start()
    loops.run(send())
