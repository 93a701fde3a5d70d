"""What others wrap around Celery's own parts of a worker: error trackers put functions of theirs in place of two of Celery's.

``celery.app.trace.build_tracer`` makes the function that runs a task, and ``billiard.pool.Worker.workloop`` is a pool process's life; sentry-sdk
wraps both.  Ours stands in the first one's place before an app is loaded, so that what is wrapped is what runs here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.app import trace

Tracer = Callable[[str, Any, Any, Any], Any]
"""Called with a task's id, its arguments and its request."""

RUN = "run_here"
"""What a wrapped tracer calls, in a request's dictionary."""

_before: list[Callable[..., Any]] = []
"""What was there before :func:`install`."""
_asked = threading.local()


def install() -> None:
    """Take Celery's place.  Before an app is loaded: who comes later wraps ours."""
    if not _before:
        _before.append(trace.build_tracer)
        trace.build_tracer = _build_tracer


def _build_tracer(*args: Any, **options: Any) -> Any:
    if getattr(_asked, "tracer", False):
        _asked.tracer = False
        return _run
    return _before[0](*args, **options)


def _run(_task_id: str, _args: Any, _kwargs: Any, request: Any) -> None:
    request.__dict__.pop(RUN)()


def tracer_of(app: Any, task: Any) -> Tracer | None:
    """What is wrapped around a task's runs; ``None``: nothing, or nothing that came after :func:`install`.

    In that case whoever wraps a task's body where its tracer is made has done so.
    """
    if trace.build_tracer is _build_tracer or _is_from(trace.build_tracer, trace):
        return None
    _asked.tracer = True
    try:
        made: Tracer = trace.build_tracer(task.name, task, app=app)
        return None if _asked.tracer or made is _run else made
    finally:
        _asked.tracer = False


def end_of_process() -> None:
    """Have those called who wrap a process's life, as at its end: Celery's own part has no pool process to live in, and says so at once."""
    pool = sys.modules.get("billiard.pool")
    if pool is not None and not _is_from(pool.Worker.workloop, pool):
        with suppress(AttributeError):
            pool.Worker.workloop(None)


def _is_from(function: Any, module: Any) -> bool:
    return getattr(function, "__globals__", None) is vars(module)
