"""Answers about what a worker is and does, in the form that Celery's monitors expect."""

from __future__ import annotations

import ast
import os
import resource
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from celeriac.compat import connect
from celeriac.compat.control.facade import NotSupported, State, autoscaler_of
from celeriac.compat.envelope import decode
from celeriac.engine.seats import SlotHandle

ANSWER_SECONDS = 0.5
"""How long slots may take to say what they run.  The client waits 1 s by default; a slot that is inside a long call of a C
extension cannot answer meanwhile."""

LONGEST_SCHEDULE = 1000
"""Scheduled tasks that are listed per queue; more would not fit into a reply that anybody reads."""

TIMER_PRIORITY = 6
"""What Celery's worker says of everything scheduled: the priority of its timer.  The message's own is in ``delivery_info``."""


def running(state: State, safe: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tasks that run, and tasks that wait in slots."""
    active, reserved = [], []
    for slot, runs, waiting in state.supervisor.running(ANSWER_SECONDS):
        started = started_times(slot)
        active += [info(state, slot, task, safe, started.get(tag)) for tag, task in runs]
        reserved += [info(state, slot, task, safe, None) for task in waiting]
    return active, reserved


def started_times(slot: SlotHandle) -> dict[int, float]:
    """When each running task was started, in seconds since the epoch."""
    offset = time.time() - time.monotonic()
    return {entry.tag: entry.started + offset for entry in slot.ledger.running()}


def info(state: State, slot: SlotHandle, task: dict[str, Any], safe: bool, started: float | None) -> dict[str, Any]:
    """One task as Celery's requests describe themselves."""
    shown = {name: value for name, value in task.items() if name != "stamps"}
    return {
        **shown,
        "args": task["args"] if safe else literal(task["args"]),
        "kwargs": task["kwargs"] if safe else literal(task["kwargs"]),
        "hostname": state.hostname,
        "time_start": started,
        "worker_pid": slot.pid if started is not None else None,
    }


def literal(text: Any) -> Any:
    """The value of a representation, where it is one of plain values; else the representation itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def scheduled(state: State) -> list[dict[str, Any]]:
    """Tasks that are not due yet.  They lie in the broker, so every worker of a queue lists the same ones.

    Raises:
        NotSupported: this broker cannot be looked into.
    """
    broker, messages = connect.producer(state.app), []
    for queue in state.supervisor.queues.names:
        found = broker.first_scheduled(queue, LONGEST_SCHEDULE)
        if found is None:
            raise NotSupported(
                "inspect scheduled on this broker", "`celeriac queues` tells how many tasks are scheduled"
            )
        messages += found
    return list(scheduled_tasks(messages, state.hostname))


def scheduled_tasks(messages: list[tuple[float, bytes]], hostname: str) -> Iterator[dict[str, Any]]:
    """Describe messages from a schedule; what cannot be read is left for the worker that takes it."""
    for due, raw in messages:
        try:
            envelope = decode(raw)
            headers = envelope["headers"]
            task = request_of(envelope, headers, hostname)
        except (ValueError, KeyError, TypeError):
            continue
        # The schedule keeps milliseconds.
        eta = headers.get("eta") or datetime.fromtimestamp(due, timezone.utc).isoformat()
        yield {"eta": eta, "priority": TIMER_PRIORITY, "request": task}


def request_of(envelope: dict[str, Any], headers: dict[str, Any], hostname: str) -> dict[str, Any]:
    """A task that waits, as Celery's requests describe themselves."""
    delivery = envelope["properties"].get("delivery_info") or {}
    return {
        "id": headers["id"],
        "name": headers.get("shadow") or headers["task"],
        "args": literal(headers.get("argsrepr")),
        "kwargs": literal(headers.get("kwargsrepr")),
        "type": headers["task"],
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": delivery.get("exchange"),
            "routing_key": delivery.get("routing_key"),
            "priority": envelope["properties"].get("priority"),
            "redelivered": bool(delivery.get("redelivered")),
        },
        "worker_pid": None,
    }


def stats(state: State) -> dict[str, Any]:
    """Celery's statistics of a worker, and this engine's under ``celeriac``."""
    supervisor, options = state.supervisor, state.consumer.controller.options
    answer = {
        "total": state.orders.counts.totals(),
        "pid": os.getpid(),
        "clock": str(state.app.clock),
        "uptime": round(time.time() - supervisor.started_at),
        "pool": pool_stats(state),
        "broker": broker_stats(state.app),
        # By count it is not limited unless it is off; 0 is AMQP's word for that.
        "prefetch_count": 0 if options.engine.prefetch else supervisor.target * options.engine.slot_concurrency,
        "rusage": usage(),
        "celeriac": engine_stats(state),
    }
    scaler = autoscaler_of(supervisor)
    if scaler is not None:
        answer["autoscaler"] = {
            "max": scaler.most, "min": scaler.fewest, "current": supervisor.target, "qty": 0
        }  # fmt: skip
    return answer


def pool_stats(state: State) -> dict[str, Any]:
    """The pool."""
    supervisor, options = state.supervisor, state.consumer.controller.options
    engine = options.engine
    return {
        "implementation": f"celeriac:{engine.pool}",
        "max-concurrency": supervisor.target * engine.slot_concurrency,
        "processes": [slot.pid for slot in supervisor.roster.all() if slot.pid],
        "max-tasks-per-child": engine.max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [options.soft_time_limit or 0, options.time_limit or 0],
        "writes": "N/A",
    }


def broker_stats(app: Any) -> dict[str, Any]:
    """Where the broker is, without password."""
    with app.connection_for_read() as connection:
        found = dict(connection.info())
    for secret in ("password", "credential_provider"):
        found.pop(secret, None)
    return {name: value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
            for name, value in found.items()}  # fmt: skip


def usage() -> dict[str, Any]:
    """The supervisor's use of the machine."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(found, name) for name in dir(found) if name.startswith("ru_")}


def engine_stats(state: State) -> dict[str, Any]:
    """What only this engine has."""
    supervisor = state.supervisor
    slots = [
        {"slot": slot.number, "pid": slot.pid, "ready": slot.ready, "running": len(slot.ledger.running())}
        for slot in supervisor.roster.all()
    ]
    return {"slots": slots, "broker_error": supervisor.broker_error, "loop_ages": supervisor.loop_ages()}
