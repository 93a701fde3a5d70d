"""Connections to one server, or to whichever server the sentinels call the master."""

from __future__ import annotations

from typing import Any

from celeriac.brokers.redis.options import RedisOptions, SentinelOptions
from celeriac.errors import ConfigurationError, MissingExtra

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel, SentinelConnectionPool
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("Redis", "redis") from error


def make_pool(options: RedisOptions) -> redis.ConnectionPool:
    """Connections that never try again by themselves: what is safe to repeat is for the caller to know."""
    arguments: dict[str, Any] = {**_timeouts(options), **options.client_options}
    if options.url.startswith("unix://"):
        arguments.pop("socket_keepalive")
    try:
        if options.sentinel is not None:
            return _sentinel_pool(options, options.sentinel, arguments)
        return redis.ConnectionPool.from_url(options.url, **arguments)
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        raise ConfigurationError(f"{options.safe_url()} is not a Redis URL: {error}") from error


def _timeouts(options: RedisOptions) -> dict[str, Any]:
    return {
        "socket_timeout": options.answer_timeout,
        "socket_connect_timeout": options.connect_timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
    }


def _sentinel_pool(
    options: RedisOptions, sentinel: SentinelOptions, arguments: dict[str, Any]
) -> SentinelConnectionPool:
    known = {**redis.connection.parse_url(options.url), **arguments}
    known.pop("connection_class", None)
    for own in ("host", "port", "path"):
        known.pop(own, None)
    timeouts = {**_timeouts(options), "socket_timeout": options.connect_timeout}
    manager = Sentinel(list(sentinel.hosts), sentinel.min_other_sentinels, {**timeouts, **sentinel.client_options})
    tls = options.url.startswith("rediss://")
    return SentinelConnectionPool(sentinel.master_name, manager, ssl=tls, **known)


def address_of(options: RedisOptions, pool: redis.ConnectionPool) -> tuple[Any, ...]:
    """What tells one server from another."""
    if options.sentinel is not None:
        return ("sentinel", options.sentinel.master_name, tuple(sorted(options.sentinel.hosts)))
    known = pool.connection_kwargs
    return (known.get("host"), known.get("port"), known.get("path"))
