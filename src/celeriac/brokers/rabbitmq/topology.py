"""Queues and exchanges: the app's, declared as Celery declares them, and those of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pamqp.base import Frame

from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.methods import bind_queue, declare_exchange, declare_queue
from celeriac.errors import AccessDenied, ConfigurationError


@dataclass(frozen=True, slots=True)
class Binding:
    """What leads messages from an exchange into a queue."""

    exchange: str
    routing_key: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    exchange_arguments: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    declared: bool = True
    """Whether the exchange is ours to declare."""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as it is declared."""

    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    passive: bool = False
    """It is somebody else's business to declare it."""


Specs = Callable[[str], QueueSpec]
"""From a queue's name to its declaration."""


def plain_queue(name: str) -> QueueSpec:
    """As Celery makes a queue that nobody has described."""
    return QueueSpec(name, bindings=(Binding(name, name),))


class Topology:
    """Declares what is not declared yet, once for each connection."""

    def __init__(self, connection: Connection, specs: Specs) -> None:
        self._connection = connection
        self._specs = specs
        self._declared: set[str] = set()
        self._since = -1.0

    def need(self, *queues: str) -> None:
        """See to it that these queues are there.

        Raises:
            ConfigurationError: one is there and is different, or may not be declared.
        """
        connection = self._connection
        if self._since != connection.connected_at:
            self._declared.clear()
        for queue in queues:
            if queue not in self._declared:
                self._declare(self._specs(queue))
                self._since = connection.connected_at
                self._declared.add(queue)

    def spec(self, queue: str) -> QueueSpec:
        """How a queue is declared."""
        return self._specs(queue)

    def is_ours(self, queue: str) -> bool:
        """Whether a queue, and what leads into it, is this process's to declare."""
        return not self._specs(queue).passive

    def forget(self) -> None:
        """Somebody may have deleted a queue."""
        self._declared.clear()

    def _declare(self, spec: QueueSpec) -> None:
        if len(spec.name.encode()) > 255:
            raise ConfigurationError(f"AMQP takes names of at most 255 bytes, not {spec.name!r}")
        methods: list[Frame] = [
            declare_exchange(
                binding.exchange, binding.type, binding.exchange_arguments, durable=binding.durable,
                auto_delete=binding.auto_delete,
            )
            for binding in spec.bindings if binding.declared and not spec.passive
        ]  # fmt: skip
        methods.append(
            declare_queue(
                spec.name, spec.arguments, durable=spec.durable, auto_delete=spec.auto_delete, passive=spec.passive
            )
        )
        methods += [
            bind_queue(spec.name, binding.exchange, binding.routing_key, binding.arguments)
            for binding in spec.bindings if not spec.passive
        ]  # fmt: skip
        self.call(spec.name, *methods)

    def call(self, what: str, *methods: Frame) -> list[Any]:
        """Declare something (see :func:`telling_objections`)."""
        with telling_objections(what):
            return self._connection.call(*methods)


@contextmanager
def telling_objections(what: str) -> Iterator[None]:
    """What the server has against a declaration is an error of the configuration."""
    try:
        yield
    except ChannelClosed as error:
        if error.code == 406:
            raise ConfigurationError(
                f"The queue {what!r} is on the server with other settings than the app gives it: {error.text}. Make "
                "task_queues say what is there, or delete the queue when it is empty"
            ) from error
        if error.code == 403:
            raise AccessDenied(
                f"No right to declare or use {what!r}: {error.text}. See `celeriac acl rabbitmq`; a producer that may only send needs "
                "queues with no_declare=True in task_queues"
            ) from error
        raise
