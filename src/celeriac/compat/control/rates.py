"""Changes rate limits of tasks while a worker runs (``rate_limit``)."""

from __future__ import annotations

import logging
from typing import Any

from celeriac.compat import connect
from celeriac.compat.control.facade import State
from celeriac.compat.limiting import Limiting
from celeriac.compat.patterns.limits import limits_cluster
from celeriac.compat.rate_limits import interval_of
from celeriac.errors import ConfigurationError, StoreError
from celeriac.policies.limit import allowance
from celeriac.policies.limit_book import NO_LIMIT, LimitBook

logger = logging.getLogger("celery.worker.control")


def rate_limit(state: State, task_name: str, rate_limit: Any, **_: Any) -> Any:
    """Limit how often this worker starts a task, or all workers together where the task says so; 0 takes the limit away."""
    try:
        interval_of(rate_limit)
    except ValueError as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return {"error": "unknown task"}
    if limits_cluster(task):
        return _limit_cluster(state.app, task_name, rate_limit)
    state.orders.set_rate_limit(task_name, rate_limit)
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return {"ok": "rate limit disabled successfully"}
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return {"ok": "new rate limit set successfully"}


def _limit_cluster(app: Any, name: str, rate_limit: Any) -> dict[str, str]:
    """Write the limit where all workers look.  Each worker that is asked does so, and writes the same."""
    try:
        allowed = allowance(rate_limit) if rate_limit else NO_LIMIT
        LimitBook(Limiting(app).declared).change(connect.key_values(app), name, allowed)
    except (ConfigurationError, StoreError) as error:
        return {"error": str(error)}
    logger.info("New rate limit for tasks of type %s, for all workers together: %s", name, allowed)
    return {"ok": f"new rate limit set successfully, for all workers together: {allowed}"}
