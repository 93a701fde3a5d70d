"""From Celery's options and settings to the engine's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from celery.utils.sysinfo import cpu_budget, is_auto_concurrency

from celeriac.compat import connect
from celeriac.errors import ConfigurationError
from celeriac.settings import EngineSettings

POOLS = {
    "processes": "processes",
    "prefork": "processes",
    "threads": "threads",
    "asyncio": "asyncio",
    "solo": "solo",
}
"""Names of pools, Celery's among them, and what they are here."""

CELERY_POOL_CLASSES = {
    "celery.concurrency.prefork": "processes",
    "celery.concurrency.thread": "threads",
    "celery.concurrency.solo": "solo",
}

CELERY_POOLS = {"processes": "prefork", "threads": "threads", "asyncio": "threads", "solo": "solo"}
"""The pools, and those of Celery's that an app may take them for."""

DEFAULT_CONCURRENCY = {"threads": None, "asyncio": 100, "solo": 1}

OWN_SETTINGS = {
    "celeriac_lease_seconds": "lease_seconds",
    "celeriac_max_crashes": "max_crashes",
    "celeriac_prefetch_seconds": "prefetch_seconds",
    "celeriac_batch_limit": "batch_limit",
    "celeriac_dead_max_age": "dead_max_age",
}
"""Celeriac's settings in ``app.conf``, and the engine's names of them."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker was asked for."""

    engine: EngineSettings
    time_limit: float | None
    soft_time_limit: float | None
    disable_rate_limits: bool
    task_events: bool
    http_host: str
    http_port: int | None
    beat: bool
    schedule_filename: str | None
    scheduler: str | None
    sizing: str
    """How the number of tasks at once was found, when it was left to the worker (``auto``); else empty."""


def worker_options(app: Any, hostname: str, given: dict[str, Any]) -> WorkerOptions:
    """Options over the app's settings.

    Raises:
        ConfigurationError: an option that cannot work.
    """
    conf = app.conf

    def either(name: str, setting: str) -> Any:
        value = given.get(name)
        return conf.get(setting) if value is None else value

    embedded = bool(given.get("embedded"))
    pool = pool_name(given.get("pool_cls") or given.get("pool"), conf.worker_pool)
    autoscale = given.get("autoscale")
    asked = either("concurrency", "worker_concurrency")
    engine = EngineSettings(
        node=hostname,
        queues=tuple(connect.queue_names(app)),
        pool="threads" if embedded and pool == "solo" else pool,
        embedded=embedded,
        concurrency=concurrency_of(asked, pool),
        autoscale=(autoscale[1], autoscale[0]) if autoscale else None,
        prefetch=not (
            either("prefetch_multiplier", "worker_prefetch_multiplier") == 1 or conf.get("worker_disable_prefetch")
        ),
        max_tasks_per_child=either("max_tasks_per_child", "worker_max_tasks_per_child"),
        max_memory_per_child=either("max_memory_per_child", "worker_max_memory_per_child"),
        soft_shutdown_seconds=float(conf.get("worker_soft_shutdown_timeout") or 0.0),
        **_own(conf),
    )
    _check(engine, autoscale)
    return WorkerOptions(
        engine=engine,
        time_limit=either("time_limit", "task_time_limit"),
        soft_time_limit=either("soft_time_limit", "task_soft_time_limit"),
        disable_rate_limits=bool(either("disable_rate_limits", "worker_disable_rate_limits")),
        task_events=bool(either("task_events", "worker_send_task_events")),
        http_host=given.get("http_host") or conf.get("celeriac_http_host") or "0.0.0.0",
        http_port=either("http_port", "celeriac_http_port"),
        beat=bool(given.get("beat")),
        schedule_filename=given.get("schedule_filename"),
        scheduler=given.get("scheduler"),
        sizing=sizing_of(pool) if is_auto_concurrency(asked) else "",
    )


def _own(conf: Any) -> dict[str, Any]:
    own = {field: conf.get(name) for name, field in OWN_SETTINGS.items()}
    return {field: value for field, value in own.items() if value is not None}


def chosen(asked: Any, configured: Any) -> Any:
    """The option, or the setting where the option is left at its default."""
    return configured if asked in (None, "prefork") and configured not in (None, "prefork") else asked


def pool_name(asked: Any, configured: Any) -> str:
    """The pool that an option or setting means: Celery's name, ours, or one of Celery's pool classes."""
    asked = chosen(asked, configured)
    if isinstance(asked, type):
        asked = CELERY_POOL_CLASSES.get(asked.__module__, f"{asked.__module__}:{asked.__qualname__}")
    name = POOLS.get(asked or "prefork")
    if name is None:
        raise ConfigurationError(
            f"There is no pool {asked!r}. Celeriac has {', '.join(sorted(POOLS))}; Celery's own worker is started for gevent, "
            "eventlet and classes, as package.module:Class"
        )
    return name


def concurrency_of(asked: Any, pool: str) -> int:
    """How many tasks at once."""
    if pool == "solo":
        return 1
    if is_auto_concurrency(asked):
        return int(_budget(pool).count)
    if isinstance(asked, str) and asked.isdigit():
        asked = int(asked)
    if isinstance(asked, int) and asked > 0:
        return asked
    return DEFAULT_CONCURRENCY.get(pool) or usable_cores()


def sizing_of(pool: str) -> str:
    """What ``auto`` came to, in Celery's words."""
    budget, name = _budget(pool), CELERY_POOLS[pool]
    if pool != "processes":
        return f"worker_concurrency='auto' only sizes the prefork pool; using available cpus={budget.count} for pool={name}."
    quota = "no cgroup cpu quota found" if budget.quota is None else f"cgroup cpu quota={budget.quota:.2f}"
    return f"worker_concurrency='auto' resolved to {budget.count} (pool={name}, {quota}, available cpus={budget.available})."


def _budget(pool: str) -> Any:
    """Celery's count of what ``auto`` may use: only processes are for what keeps a core busy."""
    return cpu_budget(use_cgroup_quota=pool == "processes")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(engine: EngineSettings, autoscale: Any) -> None:
    if autoscale and engine.pool != "processes":
        raise ConfigurationError("--autoscale works with --pool=processes; the other pools run in one process")
    if engine.dead_max_age < 0:
        raise ConfigurationError(
            f"celeriac_dead_max_age is {engine.dead_max_age!r}; it is a number of seconds, 0 for no limit"
        )
    if engine.lease_seconds < 1:
        raise ConfigurationError("celeriac_lease_seconds must be at least 1, or slow networks look like dead nodes")
