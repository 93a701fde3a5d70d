"""The rows that can be chosen on the command line, and the cases that each of them measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from benchmarks.cases import Case
from benchmarks.patterns import PATTERNS
from benchmarks.systems import ON_POSTGRES, RESULTS_IN_POSTGRES, SYSTEMS


class Choice(NamedTuple):
    """What the command line chose."""

    results: tuple[bool, ...] = (False, True)
    rtts: tuple[float, ...] = (0.0, 2.0)
    only: frozenset[str] = frozenset()
    """Names of systems; empty means all."""


CELERY = ("celeriac", "celery")
CELERY_BOTH = (*CELERY, "celery-threads")
ON_REDIS = tuple(
    name for name, system in SYSTEMS.items() if system.on_redis and type(system) not in RESULTS_IN_POSTGRES
)
ON_EACH_STORE = ("celeriac", "celeriac-sqlite", "celeriac-postgres", "celeriac-rabbitmq")
"""On RabbitMQ, results and shared state are in Redis."""
REAL = tuple(name for name in ON_REDIS if name != "limit")


def _drain(choice: Choice) -> Iterable[Case]:
    return [Case("drain", name, results, rtt) for results in choice.results for rtt in choice.rtts for name in ON_REDIS]


def _steady(choice: Choice) -> Iterable[Case]:
    return [Case("steady", name, results, rtt) for results in choice.results for rtt in choice.rtts for name in REAL]


def _send(choice: Choice) -> Iterable[Case]:
    # Whether results are stored makes no difference to the sender.
    return [Case("send", name, rtt=rtt) for rtt in choice.rtts for name in REAL]


def _plain(measure: str, names: Iterable[str]) -> Callable[[Choice], Iterable[Case]]:
    return lambda _: [Case(measure, name) for name in names]


def _sqlite(choice: Choice) -> Iterable[Case]:
    """Celeriac on a file, beside Celery on Redis."""
    names = ("celeriac-sqlite", "celery")
    drains = [Case("drain", name, results) for results in choice.results for name in names]
    return [*drains, *(Case(measure, name) for measure in ("send", "steady") for name in names)]


def _postgres(_: Choice) -> Iterable[Case]:
    """Celeriac with results; the others as they come, without, and PgQueuer with results that the app writes as well."""
    kept = ("limit-postgres", "celeriac-postgres")
    drains = [Case("drain", kind.name, kind.name in kept) for kind in ON_POSTGRES]
    drains.append(Case("drain", "pgqueuer", results=True))
    return [*drains, *(Case("send", kind.name) for kind in ON_POSTGRES if kind.name != "limit-postgres")]


def _postgres_results(_: Choice) -> Iterable[Case]:
    return [Case("drain", kind.name, results=True) for kind in RESULTS_IN_POSTGRES]


def _rabbitmq(_: Choice) -> Iterable[Case]:
    """Celeriac and Celery, both on RabbitMQ."""
    names = ("celeriac-rabbitmq", "celery-rabbitmq")
    cases = [Case(measure, name) for measure in ("drain", "send", "steady", "idle") for name in names]
    quorum = [Case("drain", f"{name}-quorum") for name in names]
    return [Case("drain", "limit-rabbitmq"), *cases, Case("send", "celery-rabbitmq-confirmed"), *quorum]


ROWS: Mapping[str, Callable[[Choice], Iterable[Case]]] = {
    "drain": _drain,
    "send": _send,
    "steady": _steady,
    "cpu": _plain("cpu", CELERY),
    "slow-task": _plain("slow-task", CELERY_BOTH),
    "queued": _plain("queued", CELERY),
    "scheduled": _plain("scheduled", CELERY),
    "idle": _plain("idle", (*REAL, "celeriac-sqlite")),
    "sqlite": _sqlite,
    "postgres": _postgres,
    "postgres-results": _postgres_results,
    "rabbitmq": _rabbitmq,
    "patterns": lambda _: [
        Case(f"pattern {name}", system, results=True) for name in PATTERNS for system in ON_EACH_STORE
    ],
}


def cases(rows: Iterable[str], choice: Choice) -> list[Case]:
    """What to measure, each once, in order."""
    chosen = (case for row in rows for case in ROWS[row](choice))
    return list(dict.fromkeys(case for case in chosen if not choice.only or case.system in choice.only))
