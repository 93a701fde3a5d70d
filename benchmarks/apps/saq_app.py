"""SAQ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

import uvloop
from saq import Queue

from benchmarks.apps import RESULTS, URL, loops
from benchmarks.bodies import BODIES

CONCURRENT_SENDS = 100
TTL = 600 if RESULTS else -1
"""Seconds.  600 is SAQ's default, -1 keeps nothing."""

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

queue = Queue.from_url(URL)


def _function(name: str, body: Any) -> tuple[str, Any]:
    async def run(_context: Any, *, args: list[Any]) -> Any:
        return body(*args)

    return name, run


settings = {
    "queue": queue,
    "functions": [_function(name, body) for name, body in BODIES.items()],
    "concurrency": 100,
}


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        for args in arguments:
            await queue.enqueue(task, args=args, ttl=TTL)

    loops.run(send())


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    """Many at a time over several connections: SAQ has nothing that sends several in one round trip."""

    async def send() -> None:
        rest = iter(arguments)
        while some := list(islice(rest, CONCURRENT_SENDS)):
            await asyncio.gather(*(queue.enqueue(task, args=args, ttl=TTL) for args in some))

    loops.run(send())
