"""The remote control commands.

Celery's registry (``Panel``) is what counts, so that users' own commands work.  Of Celery's built-in ones, those whose
implementation needs Celery's worker are replaced here; an answer has the form that Celery's has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from celery import signals
from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from celeriac.compat.control import describe, revoking
from celeriac.compat.control.facade import NotSupported, State, autoscaler_of
from celeriac.compat.control.queues import active_queues, add_consumer, cancel_consumer
from celeriac.compat.control.rates import rate_limit
from celeriac.compat.control.reloading import pool_restart
from celeriac.compat.control.revoking import revoke_by_stamped_headers
from celeriac.engine.supervisor import Shutdown

logger = logging.getLogger("celery.worker.control")

Command = Callable[..., Any]
BUILT_IN = "celery.worker.control"


class Commands(Mapping[str, Command]):
    """Celery's registry as this worker serves it.  Looked up anew each time: users may register commands at any time."""

    def __getitem__(self, name: str) -> Command:
        command: Command = Panel.data[name]
        if command.__module__ != BUILT_IN:
            return politely(command)
        return politely(REPLACED.get(command.__name__, command))

    def __iter__(self) -> Iterator[str]:
        return iter(Panel.data)

    def __len__(self) -> int:
        return len(Panel.data)


def politely(command: Command) -> Command:
    """What cannot be done is an answer that people can read, not the representation of an exception."""

    def answered(state: State, **arguments: Any) -> Any:
        try:
            return command(state, **arguments)
        except NotSupported as error:
            return {"error": str(error)}

    return answered


# -- inspect ----------------------------------------------------------------------------------------------------------


def active(state: State, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
    """Tasks that run."""
    return describe.running(state, safe)[0]


def reserved(state: State, **_: Any) -> list[dict[str, Any]]:
    """Tasks that slots hold and have not started: some 20 ms of work each at most."""
    return describe.running(state, False)[1]


def scheduled(state: State, **_: Any) -> list[dict[str, Any]]:
    """Tasks that are not due yet."""
    return describe.scheduled(state)


def query_task(state: State, ids: Any, **_: Any) -> dict[str, Any]:
    """Where tasks are, of those that this worker has."""
    wanted = set(maybe_list(ids) or ())
    running, waiting = describe.running(state, False)
    found = {task["id"]: ("active", task) for task in running if task["id"] in wanted}
    found.update((task["id"], ("reserved", task)) for task in waiting if task["id"] in wanted)
    if wanted - set(found):
        with suppress(NotSupported):  # this broker does not show what is scheduled: the rest of the answer holds
            later = (entry["request"] for entry in describe.scheduled(state))
            found.update((task["id"], ("scheduled", task)) for task in later if task["id"] in wanted - set(found))
    return found


def stats(state: State, **_: Any) -> dict[str, Any]:
    """Statistics."""
    return describe.stats(state)


def hello(state: State, from_node: str, revoked: Any = None, **arguments: Any) -> Any:
    """A Celery worker that starts wants to know what is revoked, and tells what it knows."""
    if revoked and from_node != state.hostname:
        state.orders.revoke(revoked)
    return Panel.data["hello"](state, from_node, **arguments)


# -- tasks ------------------------------------------------------------------------------------------------------------


def revoke(
    state: State, task_id: Any, terminate: bool = False, signal: str | None = None, kept: bool = False, **_: Any
) -> Any:
    """Keep tasks from being started; with ``terminate``, end them too.  ``kept``: it is written down already."""
    ids = maybe_list(task_id) or ()
    if not kept:
        state.orders.keep(ids)
    return revoking.revoke(state, ids, terminate=terminate, signame=signal)


def terminate(state: State, signal: str, task_id: Any, **_: Any) -> Any:
    """Revoke with ``terminate``."""
    return revoking.revoke(state, maybe_list(task_id) or (), terminate=True, signame=signal)


def time_limit(state: State, task_name: str = "", hard: Any = None, soft: Any = None, **_: Any) -> Any:
    """Set a task's limits for all further runs."""
    if task_name not in state.app.tasks:
        return {"error": "unknown task"}
    state.orders.set_time_limits(task_name, soft, hard)
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return {"ok": "time limits set successfully"}


# -- pool -------------------------------------------------------------------------------------------------------------


def pool_grow(state: State, n: int = 1, **_: Any) -> Any:
    """Start ``n`` more slots."""
    return resize(state, "grow", n)


def pool_shrink(state: State, n: int = 1, **_: Any) -> Any:
    """End ``n`` slots as soon as they are free."""
    return resize(state, "shrink", n)


def resize(state: State, how: str, n: int) -> Any:
    """Grow or shrink, unless the autoscaler does that."""
    if autoscaler_of(state.supervisor) is not None:
        return {"error": f"pool_{how} is not supported with autoscale. Adjust autoscale range instead."}
    getattr(state.consumer.pool, how)(int(n))
    return {"ok": f"pool will {how}"}


def autoscale(state: State, max: int | None = None, min: int | None = None, **_: Any) -> Any:
    """Change the limits of the autoscaler."""
    scaler = autoscaler_of(state.supervisor)
    if scaler is None:
        raise ValueError("Autoscale not enabled")
    most = scaler.most if max is None else int(max)
    fewest = scaler.fewest if min is None else int(min)
    if not 0 <= fewest <= most or most < 1:
        return {"error": f"autoscale needs 0 <= min <= max and max >= 1, not max={most} min={fewest}"}
    scaler.most, scaler.fewest = most, fewest
    return {"ok": f"autoscale now max={most} min={fewest}"}


def shutdown(state: State, msg: str = "Got shutdown from remote", **_: Any) -> Any:
    """Stop warmly.  Answers, where Celery does not."""
    logger.warning(msg)
    signals.worker_shutting_down.send(sender=state.hostname, sig="remote", how="Warm", exitcode=0)
    state.supervisor.stop(Shutdown.WARM)
    return {"ok": "shutting down"}


# -- events -----------------------------------------------------------------------------------------------------------


def enable_events(state: State, **_: Any) -> Any:
    """Send task events from now on."""
    return switch_events(state, True, "enabled")


def disable_events(state: State, **_: Any) -> Any:
    """Send no more task events."""
    return switch_events(state, False, "disabled")


def switch_events(state: State, on: bool, word: str) -> Any:
    """Turn task events on or off, in all slots."""
    if state.orders.events.wanted is on:
        return {"ok": f"task events already {word}"}
    state.orders.set_events(on)
    logger.info("Events of group {task} %s by remote.", word)
    return {"ok": f"task events {word}"}


def heartbeat(state: State, **_: Any) -> Any:
    """Send a heartbeat at once."""
    state.heartbeat()


def election(state: State, id: str, topic: str, action: Any = None, **_: Any) -> Any:
    """Celery's workers elect one of them by gossip."""
    raise NotSupported("election", "Celeriac's workers do not gossip; let a task do it that a beat schedule sends once")


REPLACED: dict[str, Command] = {
    command.__name__: command
    for command in (
        active, reserved, scheduled, query_task, stats, active_queues, hello, revoke, terminate,
        revoke_by_stamped_headers, rate_limit, time_limit, pool_grow, pool_shrink, pool_restart, autoscale, shutdown,
        add_consumer, cancel_consumer, enable_events, disable_events, heartbeat, election,
    )
}  # fmt: skip
"""Celery's built-in commands that are answered by this module."""
