"""Changes what a running worker consumes (``add_consumer``, ``cancel_consumer``)."""

from __future__ import annotations

import logging
from typing import Any

from celeriac.compat.control.facade import State

logger = logging.getLogger("celery.worker.consumer")


def add_consumer(
    state: State,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    """Consume one more queue, in all slots."""
    queues = state.app.amqp.queues
    if queue in queues:  # not queues[queue], which makes missing ones
        declared = queues.select_add(queues[queue])
    else:
        declared = queues.select_add(
            queue,
            exchange=queue if exchange is None else exchange,
            exchange_type=exchange_type or "direct",
            routing_key=routing_key,
            **options,
        )
    if declared.name not in state.supervisor.queues.names:
        state.consumer.controller.exchanges.add(declared)
        state.supervisor.queues.add(declared.name)
        logger.info("Started consuming from %s", queue)
    return {"ok": f"add consumer {queue}"}


def cancel_consumer(state: State, queue: str, **_: Any) -> Any:
    """Consume a queue no more, in all slots.  What they hold of it is still run."""
    queues = state.app.amqp.queues
    name = queues.aliases[queue].name if queue in queues.aliases else queue
    logger.info("Canceling queue %s", queue)
    queues.deselect(queue)
    state.supervisor.queues.cancel(name)
    state.consumer.controller.exchanges.cancel(name)
    return {"ok": f"no longer consuming from {queue}"}


def active_queues(state: State, **_: Any) -> list[dict[str, Any]]:
    """Queues that are consumed."""
    return [dict(queue.as_dict(recurse=True)) for queue in state.consumer.task_consumer.queues]
