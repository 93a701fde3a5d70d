"""Changes rate limits of tasks while a worker runs (``rate_limit``)."""

from __future__ import annotations

import logging
from typing import Any

from celeriac.compat.control.facade import State
from celeriac.compat.rate_limits import interval_of

logger = logging.getLogger("celery.worker.control")


def rate_limit(state: State, task_name: str, rate_limit: Any, **_: Any) -> Any:
    """Limit how often this worker starts a task; 0 takes the limit away."""
    try:
        interval_of(rate_limit)
    except ValueError as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    if task_name not in state.app.tasks:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return {"error": "unknown task"}
    state.orders.set_rate_limit(task_name, rate_limit)
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return {"ok": "rate limit disabled successfully"}
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return {"ok": "new rate limit set successfully"}
