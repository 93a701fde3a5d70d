"""Celery's own delayed delivery on RabbitMQ, for stock producers that send to quorum queues.

With a quorum queue among its queues, stock Celery sends a task that has a countdown into the exchange ``celery_delayed_27``, and
relies on a worker having declared it.  Celeriac's own delays are in the queues ``celeriac.delay.*``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker.consumer.delayed_delivery import DelayedDelivery

from celeriac.broker import Broker
from celeriac.compat import connect, connect_rabbitmq


def declare_native_delays(app: Any, broker: Broker) -> None:
    """Do what a stock worker does at its start, where it would."""
    if (
        connect.scheme_of(connect.broker_url(app)) not in connect_rabbitmq.SCHEMES
        or not detect_quorum_queues(app, "amqp")[0]
    ):
        return
    broker.prepare(list(app.amqp.queues))  # the exchanges to bind must be there
    consumer = SimpleNamespace(app=app)
    DelayedDelivery(consumer).start(consumer)
