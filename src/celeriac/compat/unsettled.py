"""Records of results that are made and not settled yet.

Celery stores a task's result before it calls handlers, receivers and error callbacks; here it is written with everything else that
the task leaves, after them.  So that they see what they would see there, this process reads its own unsettled records, and an
error callback, which may tell others to look, is preceded by a write of its own.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import NotRegistered

from celeriac.backend import Backend
from celeriac.compat import connect, context
from celeriac.compat.collect import Collector, current_collector
from celeriac.errors import StoreFull, StoreUnavailable

logger = logging.getLogger("celery.backends")

_stores = connect.PerProcess()


def store_of(app: Any) -> Backend:
    """The app's store, one object per process."""
    found: Backend = _stores.get(app, connect.open_backend)
    return found


def unsettled(task_id: str) -> bytes | None:
    """The record that the running task has made for this id, if it has made one."""
    collector = current_collector()
    task = context.task_stack.top
    made = [*(task.request.__dict__.get("recorded") or ())] if task is not None else []
    if collector is not None:
        made += collector.results
    for result in reversed(made):
        if result.task_id == task_id:
            payload: bytes = result.payload
            return payload
    return None


def store_before_errbacks(backend: Any, request: Any) -> None:
    """Write the collected records now if an error callback is going to be called here.  Settling writes the same again."""
    collector = current_collector()
    if collector is not None and any(_is_called(backend, each) for each in request.errbacks):
        _store_now(backend.app, collector, "an error callback is called")


def store_before_revoking(app: Any) -> None:
    """Write the collected records now, because others are going to be told to revoke tasks, which spares those that have ended."""
    collector = current_collector()
    if collector is not None:
        _store_now(app, collector, "tasks are revoked")


def _store_now(app: Any, collector: Collector, why: str) -> None:
    store = store_of(app) if collector.results else None
    if store is None:
        return
    try:
        store.store(collector.results, guarded=True)
    except (StoreUnavailable, StoreFull) as error:
        logger.warning("Results could not be stored before %s: %s", why, error)


def _is_called(backend: Any, errback: Any) -> bool:
    """Whether Celery calls this error callback in place, and does not send it: it takes more than a task's id."""
    signature = backend.app.signature(errback)
    try:
        return hasattr(signature.type, "__header__") and backend._errback_arity_greater(signature, 1)
    except NotRegistered:
        return False
