"""PgQueuer.

It deletes a finished job and writes a row with its status into its log, both in one statement for a batch of jobs.  It keeps no return
values.  With results on, the app does that: each job puts its result into a table of the app's before it ends, together with the other
jobs that end meanwhile, so that one INSERT and one commit serve many.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.apps import RESULTS, URL, loops
from benchmarks.bodies import BODIES

MOST = 10_000
"""Jobs in one statement."""

_TABLE = """
CREATE TABLE IF NOT EXISTS bench_results (
    job_id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), result text NOT NULL
)
"""
_STORE = """
INSERT INTO bench_results (job_id, result) SELECT * FROM unnest($1::bigint[], $2::text[])
ON CONFLICT (job_id) DO UPDATE SET at = excluded.at, result = excluded.result
"""

_kept: list[Queries] = []


class Results:
    """Stores results on a connection of its own; what comes while it writes goes with the next write."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._waiting: list[tuple[int, str, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def store(self, job_id: int, result: str) -> None:
        """Return when it is committed."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((job_id, result, stored))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            ids, results, waiters = zip(*batch, strict=True)
            await self._connection.execute(_STORE, ids, results)
            for waiter in waiters:
                waiter.set_result(None)


async def work() -> None:
    """One worker process, without ``pgq run``: that command of 1.6.0 fails over its own log level."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))
    results = Results(await asyncpg.connect(URL)) if RESULTS else None
    for name, body in BODIES.items():
        _register(queuer, name, body, results)
    await queuer.run(batch_size=100)


def _register(queuer: PgQueuer, name: str, body: Any, results: Results | None) -> None:
    async def run(job: Job) -> None:
        body(*json.loads(job.payload or b"[]"))

    async def run_and_store(job: Job) -> None:
        result = body(*json.loads(job.payload or b"[]"))
        assert results is not None
        await results.store(job.id, json.dumps(result))

    queuer.entrypoint(name)(run if results is None else run_and_store)


async def _queries() -> Queries:
    if not _kept:
        connection = await asyncpg.connect(URL)
        queries = Queries(AsyncpgDriver(connection))
        if await connection.fetchval("SELECT to_regclass('pgqueuer')") is None:
            await queries.install()
            await connection.execute(_TABLE)
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
