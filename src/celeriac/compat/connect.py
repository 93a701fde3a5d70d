"""From an app's configuration to the stores that it means."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.errors import ConfigurationError, MissingExtra

EMBEDDED_FILE = "celeriac.sqlite3"
"""The embedded default, in the current directory."""

EMBEDDED_URL = f"sqlite:///{EMBEDDED_FILE}"

REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "unix"})

PRODUCER_ANSWER_SECONDS = 5.0
"""How long a producer waits for a broker that accepts connections and does not answer.  (Celery waits for ever.)"""


def broker_url(app: Any) -> str:
    """The broker that the app means."""
    url = app.conf.broker_write_url or app.conf.broker_url
    if isinstance(url, (list, tuple)):
        url = url[0] if url else None
    if not url:
        raise ConfigurationError(
            "The app has no broker_url, which for Celery means amqp://guest@localhost//. Celeriac has no engine for that: "
            f"set broker_url to redis://… or {EMBEDDED_URL}, or make the app with `from celeriac import Celery`, which uses "
            f"the file {EMBEDDED_FILE}"
        )
    return str(url)


def scheme_of(url: str) -> str:
    """The URL's scheme."""
    return url.partition("://")[0] if "://" in url else url


def open_broker(app: Any, *, answer_seconds: float | None = None) -> Broker:
    """A new broker object for the app's broker.

    Raises:
        ConfigurationError: there is no engine for it; the text names the way out.
    """
    url = broker_url(app)
    scheme = scheme_of(url)
    if scheme == "sqlite":
        return _sqlite_broker(app, url, answer_seconds)
    if scheme in REDIS_SCHEMES:
        return _redis_broker(app, url, answer_seconds)
    raise ConfigurationError(
        f"Celeriac has no engine for {scheme}:// brokers yet; it has redis://, rediss:// and sqlite://. "
        "Until then run this app with `celery worker`"
    )


def open_backend(app: Any) -> Backend | None:
    """A new object for the app's result store; ``None`` when results are off or Celery's own class writes them."""
    url = result_url(app)
    scheme = scheme_of(url) if url else ""
    if scheme == "sqlite":
        return _sqlite_backend(app, str(url))
    if scheme in REDIS_SCHEMES:
        return _redis_backend(app, str(url))
    return None


def result_url(app: Any) -> str | None:
    """The result store that the app means: where the broker is the embedded default, results are in the same file."""
    url = app.backend_cls or app.conf.result_backend
    if url is None and getattr(app, "embedded", False) and app.conf.broker_url == EMBEDDED_URL:
        return EMBEDDED_URL
    return url if isinstance(url, str) else None


def queue_names(app: Any) -> list[str]:
    """Names of the queues that a worker of this app consumes when it is not told otherwise."""
    return list(app.amqp.queues.consume_from)


# -- SQLite -----------------------------------------------------------------------------------------------------------


def sqlite_path(url: str) -> Path:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``."""
    path = unquote(urlsplit(url).path)[1:]
    if not path:
        raise ConfigurationError(
            f"{url} names no file: write sqlite:///name.sqlite3 or sqlite:////absolute/path.sqlite3"
        )
    return Path(path).absolute()


def _sqlite_broker(app: Any, url: str, answer_seconds: float | None) -> Broker:
    from celeriac.brokers.sqlite import SQLiteBroker

    options = _sqlite_options(app.conf.broker_transport_options)
    if answer_seconds is not None:
        options.setdefault("timeout", answer_seconds)
    return SQLiteBroker(sqlite_path(url), **options)


def _sqlite_backend(app: Any, url: str) -> Backend:
    from celeriac.backends.sqlite import SQLiteBackend

    return SQLiteBackend(sqlite_path(url), result_ttl=seconds(app.conf.result_expires))


def _sqlite_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("synchronous", "timeout") if name in options}


# -- Redis ------------------------------------------------------------------------------------------------------------


def _redis_broker(app: Any, url: str, answer_seconds: float | None) -> Broker:
    _require_redis()
    from celeriac.brokers.redis import RedisBroker

    backend = open_backend(app)
    options = _redis_options(url, app.conf.broker_transport_options, app.conf.broker_use_ssl, app, answer_seconds)
    return RedisBroker(options, getattr(backend, "keys", None))


def _redis_backend(app: Any, url: str) -> Backend:
    _require_redis()
    from celeriac.backends.redis import RedisBackend

    conf = app.conf
    transport = conf.get("result_backend_transport_options") or {}
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
    }
    if "priority_steps" in transport:
        known["priority_steps"] = tuple(sorted(transport["priority_steps"]))
    if "sep" in transport:
        known["separator"] = transport["sep"]
    return RedisOptions(redis_url(url, tls=bool(ssl)), **known)


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


def seconds(value: Any) -> float | None:
    """A duration of Celery's configuration (a number or a ``timedelta``); ``None`` means for ever."""
    if value is None:
        return None
    return float(value.total_seconds()) if hasattr(value, "total_seconds") else float(value)


def whole_seconds(value: Any) -> int:
    """The same in whole seconds; 0 means for ever."""
    return int(seconds(value) or 0)


# -- one per process --------------------------------------------------------------------------------------------------


class PerProcess:
    """Keeps one object per app and process: nothing of a connection survives a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()

    def get(self, app: Any, make: Any) -> Any:
        """The app's object in this process; ``make(app)`` makes it."""
        pid = os.getpid()
        found = self._made.get(app)
        if found is not None and found[0] == pid:
            return found[1]
        with self._lock:
            found = self._made.get(app)
            if found is None or found[0] != pid:
                found = self._made[app] = (pid, make(app))
        return found[1]


_producers = PerProcess()


def producer(app: Any) -> Broker:
    """The broker object that this process sends with."""
    broker: Broker = _producers.get(app, _open_producer)
    return broker


def _open_producer(app: Any) -> Broker:
    return open_broker(app, answer_seconds=PRODUCER_ANSWER_SECONDS)
