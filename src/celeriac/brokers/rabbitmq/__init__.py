"""RabbitMQ as a broker."""

from __future__ import annotations

from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.rabbitmq.options import Address, RabbitOptions
from celeriac.brokers.rabbitmq.topology import Binding, QueueSpec, plain_queue

__all__ = ["Address", "Binding", "QueueSpec", "RabbitBroker", "RabbitOptions", "plain_queue"]
