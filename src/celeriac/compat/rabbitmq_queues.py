"""The app's queues, declared on RabbitMQ exactly as kombu declares them; but for what ``celeriac_queue_full`` says of full ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.transport.base import to_rabbitmq_queue_arguments

from celeriac.brokers.rabbitmq.dead import EXCHANGE as DEAD_EXCHANGE
from celeriac.brokers.rabbitmq.topology import Binding, QueueSpec
from celeriac.compat.back_pressure import DROP_OLDEST, SERVERS_WORDS

DURATIONS = ("expires", "message_ttl")
LIMITS = ("max_length", "max_length_bytes", "max_priority")


def queue_specs(app: Any) -> Callable[[str], QueueSpec]:
    """What tells how a queue of this app is declared."""
    return lambda name: queue_spec(app.amqp.queues[name], app.conf.get("celeriac_queue_full"))


def queue_spec(queue: Any, queue_full: str | None = None) -> QueueSpec:
    """A kombu queue's declaration."""
    options = {option: getattr(queue, option) for option in (*DURATIONS, *LIMITS)}
    arguments = to_rabbitmq_queue_arguments(dict(queue.queue_arguments or {}), **options)
    if "x-max-length" in arguments and "x-overflow" not in arguments and queue_full in SERVERS_WORDS:
        arguments["x-overflow"] = SERVERS_WORDS[queue_full]
        if queue_full == DROP_OLDEST:
            arguments.setdefault("x-dead-letter-exchange", DEAD_EXCHANGE)
    bindings = [
        _binding(each.exchange, each.routing_key, each.arguments) for each in queue.bindings if each.exchange.name
    ]
    if not bindings and queue.exchange is not None and queue.exchange.name:
        bindings = [_binding(queue.exchange, queue.routing_key, queue.binding_arguments)]
    return QueueSpec(
        queue.name,
        durable=bool(queue.durable),
        auto_delete=bool(queue.auto_delete),
        arguments=arguments,
        bindings=tuple(bindings),
        passive=bool(queue.no_declare),
    )


def _binding(exchange: Any, routing_key: str | None, arguments: dict[str, Any] | None) -> Binding:
    return Binding(
        exchange.name,
        routing_key or "",
        exchange.type,
        durable=bool(exchange.durable),
        auto_delete=bool(exchange.auto_delete),
        exchange_arguments=dict(exchange.arguments or {}),
        arguments=dict(arguments or {}),
        declared=not (exchange.no_declare or exchange.passive),
    )
