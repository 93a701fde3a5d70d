"""Restarts the pool, with other code if it is to be (``pool_restart``)."""

from __future__ import annotations

from typing import Any

from celeriac.compat.control.facade import State
from celeriac.compat.control.modules import load


def pool_restart(state: State, modules: Any = None, reload: bool = False, reloader: Any = None, **_: Any) -> Any:
    """Replace all slots; what they run finishes first.  The new ones import ``modules``, or import them anew."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    names = sorted(set(state.app.loader.task_modules if modules is None else modules or ()))
    if modules is not None or reload:
        load(state.app, names, anew=reload)
        state.orders.set_modules(names, anew=reload)
    state.consumer.pool.restart()
    return {"ok": "reload started"}
