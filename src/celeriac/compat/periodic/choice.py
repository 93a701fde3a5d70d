"""Which scheduler runs the app's beat schedule."""

from __future__ import annotations

from typing import Any

from celery.utils.imports import symbol_by_name

from celeriac.compat import connect
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.errors import ConfigurationError

CELERYS_DEFAULT = "celery.beat:PersistentScheduler"


def scheduler_class(app: Any, asked: Any = None) -> Any:
    """The scheduler that was asked for (``-S``), or that the app's configuration names; else the one of this package.

    Where nothing can keep the shared state, it is Celery's own, which keeps it in a file and must run only once.
    """
    chosen = asked or app.conf.beat_scheduler
    if asked or chosen != CELERYS_DEFAULT:
        return chosen
    try:
        connect.check_key_values(app, elsewhere=True)
    except ConfigurationError:
        return CELERYS_DEFAULT
    return StoreScheduler


def store_scheduler(app: Any) -> StoreScheduler:
    """A scheduler over the shared store, for commands that look at the schedule or do one step of it.

    Raises:
        ConfigurationError: the app uses another scheduler, or nothing can keep the shared state.
    """
    chosen = scheduler_class(app)
    if chosen == CELERYS_DEFAULT:
        connect.check_key_values(app, elsewhere=True)  # says why
    found = symbol_by_name(chosen)
    if not (isinstance(found, type) and issubclass(found, StoreScheduler)):
        raise ConfigurationError(
            f"This app's schedule is kept by {chosen} (beat_scheduler), which has commands or pages of its own; "
            "without that setting Celeriac keeps it"
        )
    return found(app)
