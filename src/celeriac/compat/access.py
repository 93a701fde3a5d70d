"""From an app to the roles of its stores' users."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from celeriac.access import Role
from celeriac.brokers.rabbitmq.access import rabbitmq_roles
from celeriac.compat import connect, connect_redis
from celeriac.compat.back_pressure import bounds_of, terms_of
from celeriac.errors import ConfigurationError
from celeriac.message import Message
from celeriac.postgres_store.access import postgres_roles

KINDS = {
    "redis": connect_redis.SCHEMES,
    "rabbitmq": frozenset({"amqp", "amqps", "pyamqp"}),
    "postgres": frozenset({"postgresql", "postgres"}),
}
"""Stores that have roles, and the schemes of their URLs."""


def roles(
    app: Any, kind: str, queues: list[str], user_prefix: str, *, control: bool = False, selectors: bool = True
) -> list[Role]:
    """The roles for a kind of store, for these queues and the app's results.

    Args:
        app: the app.
        kind: one of :data:`KINDS`.
        queues: their names.
        user_prefix: what the users' names begin with.
        control: let monitors send control commands (Flower, ``inspect``).
        selectors: false for Redis 6.2.

    Raises:
        ConfigurationError: the app has no such store.
    """
    url = _url_of(app, kind)
    if kind == "redis":
        return _redis_access(app, url, queues).roles(user_prefix, control=control, selectors=selectors)
    if kind == "postgres":
        schema = (app.conf.broker_transport_options or {}).get("schema") or "celeriac"
        return postgres_roles(schema, user_prefix, control=control, bounded=bounded_queues(app, queues))
    vhost = urlsplit(url.split(";", maxsplit=1)[0]).path.removeprefix("/") or "/"
    exchanges = [exchange.name for queue in queues if (exchange := app.amqp.queues[queue].exchange) is not None]
    return rabbitmq_roles(vhost, queues, exchanges, user_prefix, control=control)


def _url_of(app: Any, kind: str) -> str:
    for url in (connect.broker_url(app), connect.result_url(app) or ""):
        if connect.scheme_of(url).partition("+")[0] in KINDS[kind] or connect.scheme_of(url) in KINDS[kind]:
            return url
    raise ConfigurationError(f"Neither the broker nor the result store of this app is {kind}")


def _redis_access(app: Any, url: str, queues: list[str]) -> Any:
    options = connect_redis.redis_options(app, url, None)
    from celeriac.brokers.redis.access import RedisAccess

    results = getattr(connect.open_backend(app), "keys", None)
    database = int(urlsplit(options.url).path.strip("/") or 0)
    return RedisAccess(options, queues, results, database, bounded_queues(app, queues))


def bounded_queues(app: Any, queues: list[str]) -> dict[str, bool]:
    """Queues whose length is bounded, and whether their oldest messages make room."""
    messages = [Message(queue, b"") for queue in queues]
    bounds = bounds_of(app, messages, terms_of(app.conf, None))
    return {queue: bound.drop_oldest for queue, bound in bounds.items()}
