"""Settings that this worker cannot honour, refused before it starts, and those whose purpose is met without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery.app.defaults import DEFAULTS

from celeriac.compat import connect
from celeriac.compat.rate_limits import interval_of
from celeriac.errors import ConfigurationError

REFUSED = {
    "worker_agent": "Celeriac's worker has no agent. Start what it does as a bootstep (app.steps['worker']) or a process",
    "worker_autoscaler": "Celeriac has its own autoscaler: use --autoscale=MAX,MIN, and `celeriac control autoscale` from "
    "whatever decides",
    "worker_consumer": "Celeriac has its own consumer. Add to it with bootsteps (app.steps['consumer'])",
    "worker_timer": "Celeriac needs no timer: scheduled messages stay in the broker. Leave worker_timer out",
    "worker_pool_start_method": "Celeriac forks its slots from a process that has no threads. Leave it at 'fork', and open "
    "connections and devices in a receiver of worker_process_init",
}
"""Settings that are refused when they are not what Celery has by default, and the way out."""

UNNEEDED = {
    "broker_channel_error_retry": "errors of the broker are always tried again",
    "worker_cancel_long_running_tasks_on_connection_loss": "a lease outlives a lost connection, and a slot that has lost its "
    "leases is ended at once",
    "worker_detect_quorum_queues": "nothing is prefetched by count, so no kind of queue needs another prefetch mode",
    "worker_enable_prefetch_count_reduction": "nothing is prefetched by count, and leases survive a lost connection",
    "worker_enable_soft_shutdown_on_idle": "an idle worker holds nothing that could be lost",
    "worker_eta_task_limit": "scheduled messages stay in the broker and take no memory here",
    "worker_lost_wait": "a slot that dies is noticed and rescued at once",
    "worker_pool_putlocks": "a slot takes work when it is free",
    "worker_proc_alive_timeout": "a slot takes work when it has started, however long that takes",
    "worker_timer_precision": "there is no timer to wake up: the broker has the schedule",
}
"""Settings without an effect, because what they are for is so anyway.  The worker says so when they are set."""


ONE_STORE = frozenset({"redis", "rediss", "sqlite", "postgresql", "postgres"})
"""Schemes of brokers where another URL is another store, which knows nothing of the first one's leases."""


def refuse(app: Any, pool_start_method: str | None = None) -> None:
    """Look through an app for what would be ignored.

    Raises:
        ConfigurationError: the first thing found, and the way out.
    """
    for problem in _problems(app, pool_start_method):
        raise ConfigurationError(problem)


def _problems(app: Any, pool_start_method: str | None) -> Iterator[str]:
    conf = app.conf
    for name, way_out in REFUSED.items():
        value = (pool_start_method or conf.get(name)) if name == "worker_pool_start_method" else conf.get(name)
        if value != DEFAULTS[name]:
            yield f"{name} = {value!r} is not supported: {way_out}"
    yield from _stores(app)
    for name, task in sorted(app.tasks.items()):
        if task.Strategy != "celery.worker.strategy:default":
            yield f"{name} has a Strategy of its own, which Celeriac's worker cannot use: override __call__ or the handlers"
        try:
            interval_of(task.rate_limit)
        except ValueError as error:
            yield f"{name}: {error}"


def _stores(app: Any) -> Iterator[str]:
    conf = app.conf
    read, write = conf.broker_read_url or conf.broker_url, conf.broker_write_url or conf.broker_url
    if read != write:
        yield (
            "broker_read_url and broker_write_url are different, but a worker takes a message and sends what follows it in one "
            "transaction: set broker_url alone"
        )
    several = [str(each) for each in (write if isinstance(write, (list, tuple)) else str(write).split(";"))]
    one_store = connect.scheme_of(several[0]) in ONE_STORE
    if len(several) > 1 and one_store:
        yield (
            "broker_url names several brokers, but only one can hold the leases: name the one, or a group that fails over by "
            "itself (Redis Sentinel or Cluster, a RabbitMQ cluster)"
        )


def unneeded(app: Any) -> list[str]:
    """What to tell of settings that somebody has set and that have no effect here."""
    changed: Callable[[str], bool] = lambda name: app.conf.get(name) != DEFAULTS[name]  # noqa: E731 - read it as a word
    return [f"{name} has no effect: {why}" for name, why in UNNEEDED.items() if changed(name)]
