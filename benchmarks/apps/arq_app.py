"""arq."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func

from benchmarks.apps import RESULTS, URL, loops
from benchmarks.bodies import BODIES

CONCURRENT_SENDS = 100
LOGGING = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def _function(name: str, body: Any) -> Any:
    async def run(_context: Any, *args: Any) -> Any:
        return body(*args)

    return func(run, name=name)


class WorkerSettings:
    functions = tuple(_function(name, body) for name, body in BODIES.items())
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 3600 if RESULTS else 0
    log_results = False


@lru_cache
def _pool() -> Any:
    return loops.run(create_pool(WorkerSettings.redis_settings))


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        for args in arguments:
            await pool.enqueue_job(task, *args)

    pool = _pool()
    loops.run(send())


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    """Many at a time over several connections: arq has nothing that sends several in one round trip."""

    async def send() -> None:
        rest = iter(arguments)
        while some := list(islice(rest, CONCURRENT_SENDS)):
            await asyncio.gather(*(pool.enqueue_job(task, *args) for args in some))

    pool = _pool()
    loops.run(send())
