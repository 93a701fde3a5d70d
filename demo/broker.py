"""The Celery app's stores, as every part of the shop reaches them."""

from __future__ import annotations

from celeriac import Celery
from demo.settings import ShopSettings


def connected_app(name: str, shop: ShopSettings) -> Celery:
    """An app with the shop's broker and result store, and no tasks yet."""
    app = Celery(name, broker=shop.broker, backend=shop.backend)
    if shop.broker.startswith("redis"):
        app.conf.broker_transport_options = {"global_keyprefix": shop.key_prefix}
    if shop.backend.startswith("redis"):
        app.conf.result_backend_transport_options = {"global_keyprefix": shop.key_prefix}
    return app
