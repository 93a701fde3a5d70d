"""The systems that are measured, in the order of the tables."""

from __future__ import annotations

from benchmarks.systems.arq import Arq
from benchmarks.systems.base import Part, System, part
from benchmarks.systems.celeriac import Celeriac, CeleriacSQLite, Limit
from benchmarks.systems.celery import CeleryPrefork, CeleryThreads
from benchmarks.systems.dramatiq import Dramatiq
from benchmarks.systems.huey import Huey
from benchmarks.systems.postgres import (
    CeleriacPostgres,
    CeleriacResults,
    CeleryDatabase,
    LimitPostgres,
    PgQueuer,
    Procrastinate,
)
from benchmarks.systems.rabbitmq import (
    CeleriacQuorum,
    CeleriacRabbit,
    CeleryConfirmed,
    CeleryQuorum,
    CeleryRabbit,
    LimitRabbit,
)
from benchmarks.systems.rq import RQ
from benchmarks.systems.saq import SAQ
from benchmarks.systems.streaq import Streaq
from benchmarks.systems.taskiq import Taskiq, TaskiqList

__all__ = ["ON_POSTGRES", "PEERS", "RESULTS_IN_POSTGRES", "SYSTEMS", "Part", "System", "part"]

PEERS: tuple[type[System], ...] = (Taskiq, TaskiqList, Dramatiq, Huey, Streaq, SAQ, Arq, RQ)
"""The other Python systems."""

ON_POSTGRES: tuple[type[System], ...] = (LimitPostgres, CeleriacPostgres, Procrastinate, PgQueuer)
"""Queues in PostgreSQL."""

RESULTS_IN_POSTGRES: tuple[type[System], ...] = (CeleriacResults, CeleryDatabase)
"""Queues in Redis, results in PostgreSQL."""

_ALL: tuple[type[System], ...] = (
    *(Limit, Celeriac, CeleriacSQLite, CeleryPrefork, CeleryThreads),
    *(LimitRabbit, CeleriacRabbit, CeleryRabbit, CeleryConfirmed, CeleriacQuorum, CeleryQuorum),
    *PEERS,
    *ON_POSTGRES,
    *RESULTS_IN_POSTGRES,
)

SYSTEMS: dict[str, System] = {kind.name: kind() for kind in _ALL}
"""By name."""
