"""PgQueuer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.apps import URL, loops
from benchmarks.bodies import BODIES

MOST = 10_000
"""Jobs in one statement."""

_kept: list[Queries] = []


async def work() -> None:
    """One worker process, without ``pgq run``: that command of 1.6.0 fails over its own log level."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))
    for name, body in BODIES.items():
        _register(queuer, name, body)
    await queuer.run(batch_size=100)


def _register(queuer: PgQueuer, name: str, body: Any) -> None:
    @queuer.entrypoint(name)
    async def run(job: Job) -> None:
        body(*json.loads(job.payload or b"[]"))


async def _queries() -> Queries:
    if not _kept:
        connection = await asyncpg.connect(URL)
        queries = Queries(AsyncpgDriver(connection))
        if await connection.fetchval("SELECT to_regclass('pgqueuer')") is None:
            await queries.install()
        _kept.append(queries)
    return _kept[0]


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        queries = await _queries()
        for args in arguments:
            await queries.enqueue(task, json.dumps(args).encode())

    loops.run(send())


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    async def send() -> None:
        queries = await _queries()
        payloads = [json.dumps(args).encode() for args in arguments]
        for first in range(0, len(payloads), MOST):
            some = payloads[first : first + MOST]
            await queries.enqueue([task] * len(some), some, [0] * len(some))

    loops.run(send())


if __name__ == "__main__":
    loops.run(work())
