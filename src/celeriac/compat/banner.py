"""What a worker says about itself when it starts."""

from __future__ import annotations

import logging
from typing import Any

import celery
from kombu.utils.url import maybe_sanitize_url

from celeriac.compat import connect, connect_postgres, connect_sqlite
from celeriac.compat.refusals import unneeded
from celeriac.version import __version__


def banner(worker: Any) -> str:
    """Everything that a person wants to know before the first task runs."""
    lines = [f"\nceleriac {__version__} (celery {celery.__version__})  {worker.hostname}\n"]
    lines += [f"  {name:<9} {text}" for name, text in _facts(worker)]
    lines += _differences(worker)
    if worker.loglevel <= logging.INFO:
        lines += ["", "  tasks", *(f"    . {name}" for name in _tasks(worker))]
    return "\n".join([*lines, ""])


def _facts(worker: Any) -> list[tuple[str, str]]:
    app, engine = worker.app, worker.options.engine
    facts = [
        ("app", f"{app.main or '__main__'}"),
        ("broker", _where(connect.broker_url(app))),
        ("results", _where(connect.result_url(app)) if connect.result_url(app) else _other_results(app)),
        ("queues", ", ".join(engine.queues)),
        ("pool", f"{engine.pool}, {_size(engine)}"),
        ("events", "on" if worker.options.task_events else "off (-E turns them on)"),
    ]
    if worker.options.http_port is not None:
        facts.append(("http", f"http://{worker.options.http_host}:{worker.options.http_port}/metrics /livez /readyz"))
    return facts


def _where(url: str | None) -> str:
    if url and connect.scheme_of(url) == "sqlite":
        return f"{url}  ({connect_sqlite.sqlite_path(url)})"
    if url and connect_postgres.is_postgres(url):
        return connect_postgres.safe_url(url)
    return str(maybe_sanitize_url(url or ""))


def _other_results(app: Any) -> str:
    name = type(app.backend).__name__
    return "off (set result_backend to keep them)" if name == "DisabledBackend" else name


def _size(engine: Any) -> str:
    if engine.autoscale:
        return f"{engine.autoscale[0]} to {engine.autoscale[1]} slots"
    if engine.pool == "processes":
        return f"{engine.concurrency} slots"
    return f"1 slot, {engine.concurrency} tasks at once"


def _tasks(worker: Any) -> list[str]:
    builtin = worker.loglevel <= logging.DEBUG
    return sorted(name for name in worker.app.tasks if builtin or not name.startswith("celery."))


def _differences(worker: Any) -> list[str]:
    """Settings under which this worker does something else than Celery's would, and how to turn it back."""
    lost = worker.app.conf.task_reject_on_worker_lost
    notes = unneeded(worker.app)
    if worker.options.engine.prefetch:
        notes.append(
            "prefetch is bounded by time (20 ms of work a slot), not by worker_prefetch_multiplier; 1 means none"
        )
    if lost is None:
        notes.append(
            "a late-acknowledged task whose process dies runs again; task_reject_on_worker_lost=False: it fails"
        )
    return ["", "  differs from Celery's defaults", *(f"    . {note}" for note in notes)] if notes else []
