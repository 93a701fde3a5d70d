"""The Celery app's stores, as every part of the shop reaches them."""

from __future__ import annotations

from kombu import Queue

from celeriac import Celery
from demo.settings import PREVIEWS_BOUND, ShopSettings

QUEUES = ("images", "email", "orders")


def connected_app(name: str, shop: ShopSettings) -> Celery:
    """An app with the shop's stores and queues, and no tasks yet.  RabbitMQ wants a queue to be declared alike by all."""
    app = Celery(name, broker=shop.broker, backend=shop.backend)
    app.conf.task_queues = [*map(Queue, (*QUEUES, "celery")), Queue("previews", max_length=PREVIEWS_BOUND)]
    app.conf.celeriac_queue_full = "raise"  # elsewhere the default; RabbitMQ's own way is to drop the oldest
    app.conf.broker_transport_options = own_place(shop.broker, shop.key_prefix)
    app.conf.result_backend_transport_options = own_place(shop.backend, shop.key_prefix)
    return app


def own_place(url: str, prefix: str) -> dict[str, str]:
    """Options by which this run meets no other, nor anything else on that server."""
    if url.startswith("redis"):
        return {"global_keyprefix": prefix}
    if url.startswith("postgres"):
        return {"schema": prefix.rstrip(":").replace("-", "_")}
    return {}
