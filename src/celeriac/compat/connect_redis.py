"""``redis://`` URLs and their relatives."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat.dead_limit import dead_limit
from celeriac.compat.durations import whole_seconds
from celeriac.errors import ConfigurationError, MissingExtra
from celeriac.keyvalue import KeyValueStore


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    _require_redis()
    from celeriac.brokers.redis import RedisBroker

    options = _redis_options(url, app.conf.broker_transport_options, app.conf.broker_use_ssl, app, answer_seconds)
    return RedisBroker(options, getattr(results, "keys", None))


def open_backend(app: Any, url: str) -> Backend:
    """A result store for this app and URL."""
    _require_redis()
    from celeriac.backends.redis import RedisBackend

    conf = app.conf
    transport = conf.get("result_backend_transport_options") or {}
    url = _with_address(url, conf)
    options = _redis_options(url, transport, conf.redis_backend_use_ssl, app, None, result_store=True)
    ttl = whole_seconds(conf.result_expires)
    chord = conf.get("result_chord_expires")
    failure = conf.get("result_failure_expires")
    return RedisBackend(
        options,
        ttl=ttl,
        failure_ttl=None if failure is None else whole_seconds(failure),
        chord_ttl=ttl if chord is None else whole_seconds(chord),
        chord_ordered=bool(transport.get("result_chord_ordered", True)),
    )


def open_key_values(app: Any, url: str) -> KeyValueStore:
    """A key-value store for this app and URL, with the broker's options."""
    _require_redis()
    from celeriac.keyvalues.redis import RedisKeyValues

    return RedisKeyValues(_redis_options(url, app.conf.broker_transport_options, app.conf.broker_use_ssl, app, None))


def _redis_options(
    url: str,
    transport: dict[str, Any],
    ssl: Any,
    app: Any,
    answer_seconds: float | None,
    *,
    result_store: bool = False,
) -> Any:
    from celeriac.brokers.redis import RedisOptions

    extra = dict(ssl) if isinstance(ssl, dict) else {}
    prefix = transport.get("global_keyprefix") or ""
    if result_store and prefix and prefix[-1] not in ":_-.":
        prefix += "_"  # as Celery's result store does
    known: dict[str, Any] = {
        "key_prefix": prefix,
        "connect_timeout": float(transport.get("socket_connect_timeout") or app.conf.broker_connection_timeout or 4),
        "answer_timeout": float(transport.get("socket_timeout") or answer_seconds or 10),
        "client_options": extra,
        **dead_limit(app),
    }
    if "priority_steps" in transport:
        known["priority_steps"] = tuple(sorted(transport["priority_steps"]))
    if "sep" in transport:
        known["separator"] = transport["sep"]
    return RedisOptions(redis_url(url, tls=bool(ssl)), **known)


def _with_address(url: str, conf: Any) -> str:
    """Celery's result store takes what its URL leaves out from settings of their own."""
    parts = urlsplit(url if "://" in url else f"{url}://")
    if parts.netloc or not (conf.redis_host or conf.redis_port or conf.redis_db or conf.redis_password):
        return url
    user, password = quote(conf.redis_username or "", safe=""), quote(conf.redis_password or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    address = f"{login}{conf.redis_host or 'localhost'}:{conf.redis_port or 6379}"
    return urlunsplit((parts.scheme, address, parts.path.strip("/") or str(conf.redis_db or 0), parts.query, ""))


def redis_url(url: str, *, tls: bool = False) -> str:
    """Kombu's and Celery's way of writing a Redis URL, as redis-py reads it."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme in ("redis+socket", "unix"):
        database = query.pop("virtual_host", query.pop("db", "0")).strip("/")
        return urlunsplit(("unix", parts.netloc, parts.path, urlencode({**query, "db": database}), ""))
    query = {
        name: value.replace("CERT_", "").lower() if name == "ssl_cert_reqs" else value for name, value in query.items()
    }
    scheme = "rediss" if tls else parts.scheme
    database = parts.path.strip("/") or "0"
    if not database.isdigit():
        raise ConfigurationError(f"The database in {url!r} must be a number, not {database!r}")
    return urlunsplit((scheme, parts.netloc or "localhost:6379", f"/{database}", urlencode(query), ""))


def _require_redis() -> None:
    try:
        import redis  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise MissingExtra("A redis:// URL", "redis") from error
