"""``redis://`` URLs and their relatives, ``sentinel://`` among them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from kombu.utils.imports import symbol_by_name

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat.dead_limit import dead_limit
from celeriac.compat.durations import whole_seconds
from celeriac.errors import ConfigurationError, MissingExtra
from celeriac.keyvalue import KeyValueStore

SCHEMES = frozenset({"redis", "rediss", "redis+socket", "sentinel", "unix"})

SENTINEL_PORT = 26379

PROVIDER = "credential_provider"

TLS_OPTIONS = frozenset(
    {"cert_reqs", "ca_certs", "ca_data", "ca_path", "certfile", "keyfile", "password", "check_hostname", "min_version"}
    | {"ciphers", "include_verify_flags", "exclude_verify_flags"}
)
"""What ``broker_use_ssl`` and ``redis_backend_use_ssl`` may have, each with ``ssl_`` before it or, as RabbitMQ's has them,
without."""


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    options = redis_options(app, url, answer_seconds)
    from celeriac.brokers.redis import RedisBroker

    return RedisBroker(options, getattr(results, "keys", None))


def open_backend(app: Any, url: str) -> Backend:
    """A result store for this app and URL."""
    options = redis_options(app, _with_address(url, app.conf), None, result_store=True)
    from celeriac.backends.redis import RedisBackend

    conf = app.conf
    ttl = whole_seconds(conf.result_expires)
    chord = conf.get("result_chord_expires")
    failure = conf.get("result_failure_expires")
    return RedisBackend(
        options,
        ttl=ttl,
        failure_ttl=None if failure is None else whole_seconds(failure),
        chord_ttl=ttl if chord is None else whole_seconds(chord),
        chord_ordered=bool((conf.get("result_backend_transport_options") or {}).get("result_chord_ordered", True)),
    )


def open_key_values(app: Any, url: str, *, apart: bool) -> KeyValueStore:
    """A key-value store for this app and URL, with the options of the broker or, where that is no Redis, of the result store."""
    _require_redis()
    from celeriac.keyvalues.redis import RedisKeyValues

    return RedisKeyValues(redis_options(app, url, None, result_store=apart))


def redis_options(app: Any, url: str, answer_seconds: float | None, *, result_store: bool = False) -> Any:
    """What the app's settings say about a Redis: :class:`celeriac.brokers.redis.RedisOptions`."""
    _require_redis()
    from celeriac.brokers.redis import RedisOptions

    conf = app.conf
    transport = (conf.get("result_backend_transport_options") or {}) if result_store else conf.broker_transport_options
    use_ssl = conf.redis_backend_use_ssl if result_store else conf.broker_use_ssl
    prefix = transport.get("global_keyprefix") or ""
    if result_store and prefix and prefix[-1] not in ":_-.":
        prefix += "_"  # as Celery's result store does
    most = answer_seconds or float("inf")
    known: dict[str, Any] = {
        "key_prefix": prefix,
        "connect_timeout": min(
            float(transport.get("socket_connect_timeout") or conf.broker_connection_timeout or 4), most
        ),
        "answer_timeout": min(float(transport.get("socket_timeout") or answer_seconds or 10), most),
        **dead_limit(app),
        "client_options": {**tls_options(use_ssl), **_credentials(conf, transport, url, result_store=result_store)},
        "sentinel": _sentinel(url, transport),
    }
    if "priority_steps" in transport:
        known["priority_steps"] = tuple(sorted(transport["priority_steps"]))
    if "sep" in transport:
        known["separator"] = transport["sep"]
    return RedisOptions(redis_url(url, tls=bool(use_ssl)), **known)


def _with_address(url: str, conf: Any) -> str:
    """Celery's result store takes what its URL leaves out from settings of their own."""
    parts = urlsplit(url if "://" in url else f"{url}://")
    if (
        parts.netloc
        or parts.scheme == "redis+socket"
        or not (conf.redis_host or conf.redis_port or conf.redis_db or conf.redis_password)
    ):
        return url
    user, password = quote(conf.redis_username or "", safe=""), quote(conf.redis_password or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    address = f"{login}{conf.redis_host or 'localhost'}:{conf.redis_port or 6379}"
    return urlunsplit((parts.scheme, address, parts.path.strip("/") or str(conf.redis_db or 0), parts.query, ""))


def redis_url(url: str, *, tls: bool = False) -> str:
    """Kombu's and Celery's way of writing a Redis URL, as redis-py reads it.  Of several sentinels the first one's says what user,
    password and database to use.
    """
    first = url.split(";", maxsplit=1)[0]
    parts = urlsplit(first)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        raise ConfigurationError(f"Write {url} as kombu and Celery do: redis+socket://{parts.path}")
    if parts.scheme == "redis+socket":
        database = query.pop("virtual_host", query.pop("db", "0")).strip("/")
        # By hand: urlunsplit() leaves the slashes out where it does not know the scheme, in some versions.
        return f"unix://{parts.netloc}{parts.path}?{urlencode({**query, 'db': database})}"
    query = {name: _tls_value(name, value) for name, value in query.items() if name != PROVIDER}
    scheme = "rediss" if tls or parts.scheme == "rediss" else "redis"
    database = parts.path.strip("/") or "0"
    if not database.isdigit():
        raise ConfigurationError(f"The database in {parts.scheme}://…{parts.path} must be a number, not {database!r}")
    return urlunsplit((scheme, parts.netloc or "localhost:6379", f"/{database}", urlencode(query), ""))


# -- sentinels ---------------------------------------------------------------------------------------------------------


def _sentinel(url: str, transport: dict[str, Any]) -> Any:
    urls = [each for each in url.split(";") if each]
    if not url.startswith("sentinel://"):
        if len(urls) > 1:
            raise ConfigurationError(
                "Several redis:// URLs are several stores, and messages would be lost between them. For a server that takes "
                "over from another write sentinel://host:26379;sentinel://other:26379 and master_name in the transport options"
            )
        return None
    if not transport.get("master_name"):
        raise ConfigurationError(
            "A sentinel:// URL needs the master's name: broker_transport_options = {'master_name': …}, and the same in "
            "result_backend_transport_options for results"
        )
    from celeriac.brokers.redis.options import SentinelOptions

    return SentinelOptions(
        tuple(_host_and_port(each) for each in urls),
        transport["master_name"],
        int(transport.get("min_other_sentinels") or 0),
        dict(transport.get("sentinel_kwargs") or {}),
    )


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"sentinel://{url}")
    return parts.hostname or "localhost", parts.port or SENTINEL_PORT


# -- users and TLS -----------------------------------------------------------------------------------------------------


def _credentials(conf: Any, transport: dict[str, Any], url: str, *, result_store: bool) -> dict[str, Any]:
    """User and password from where kombu and Celery look for them beside the URL."""
    parts = urlsplit(url.split(";", maxsplit=1)[0])
    provider = conf.get(f"redis_backend_{PROVIDER}") if result_store else transport.get(PROVIDER)
    provider = dict(parse_qsl(parts.query)).get(PROVIDER) or provider
    if provider:
        return {PROVIDER: symbol_by_name(provider)() if isinstance(provider, str) else provider}
    if not result_store or parts.username or parts.password:
        return {}
    found = {"username": conf.get("redis_username"), "password": conf.get("redis_password")}
    return {name: value for name, value in found.items() if value}


def tls_options(use_ssl: Any) -> dict[str, Any]:
    """``broker_use_ssl`` or ``redis_backend_use_ssl`` as redis-py's keyword arguments.

    Raises:
        ConfigurationError: it has something in it that is no option of TLS.
    """
    if not isinstance(use_ssl, dict):
        return {}
    options = {}
    for name, value in use_ssl.items():
        plain = name.removeprefix("ssl_")
        if plain not in TLS_OPTIONS:
            known = ", ".join(f"ssl_{each}" for each in sorted(TLS_OPTIONS))
            raise ConfigurationError(
                f"broker_use_ssl and redis_backend_use_ssl have no option {name!r}; they have {known}"
            )
        options[f"ssl_{plain}"] = _tls_value(f"ssl_{plain}", value)
    return options


def _tls_value(name: str, value: Any) -> Any:
    """``CERT_REQUIRED`` and ``required`` are the same."""
    if name == "ssl_cert_reqs" and isinstance(value, str):
        return value.upper().removeprefix("CERT_").lower()
    return value


def _require_redis() -> None:
    try:
        import redis  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise MissingExtra("A redis:// URL", "redis") from error
