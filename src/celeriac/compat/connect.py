"""From an app's configuration to the stores that it means."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat import connect_postgres, connect_rabbitmq, connect_redis, connect_sqlite
from celeriac.errors import ConfigurationError
from celeriac.keyvalue import KeyValueStore

EMBEDDED_FILE = "celeriac.sqlite3"
"""The embedded default, in the current directory."""

EMBEDDED_URL = f"sqlite:///{EMBEDDED_FILE}"

CELERYS_DEFAULT = "amqp://guest@localhost//"
"""What an app without a ``broker_url`` means."""

REDIS_SCHEMES = connect_redis.SCHEMES

PRODUCER_ANSWER_SECONDS = 5.0
"""How long a producer waits for a broker that accepts connections and does not answer.  (Celery waits for ever.)"""


def broker_url(app: Any) -> str:
    """The broker that the app means."""
    url = app.conf.broker_write_url or app.conf.broker_url
    if isinstance(url, (list, tuple)):
        url = ";".join(url)  # as kombu writes alternatives in one URL
    return str(url or CELERYS_DEFAULT)


def scheme_of(url: str) -> str:
    """The URL's scheme."""
    return url.partition("://")[0] if "://" in url else url


BrokerOpener = Callable[[Any, str, float | None, Backend | None], Broker]
"""Takes the app, the URL, how many seconds a producer waits for an answer (``None``: as long as a worker), and the app's result
store, which the broker may write itself."""

BROKERS: dict[str, BrokerOpener] = {
    "sqlite": connect_sqlite.open_broker,
    **dict.fromkeys(connect_postgres.SCHEMES, connect_postgres.open_broker),
    **dict.fromkeys(REDIS_SCHEMES, connect_redis.open_broker),
    **dict.fromkeys(connect_rabbitmq.SCHEMES, connect_rabbitmq.open_broker),
}
"""The engines, by the scheme of the broker's URL."""

BACKENDS: dict[str, Callable[[Any, str], Backend]] = {
    "sqlite": connect_sqlite.open_backend,
    **dict.fromkeys(connect_postgres.SCHEMES, connect_postgres.open_backend),
    **dict.fromkeys(REDIS_SCHEMES, connect_redis.open_backend),
}
"""The result stores, by the scheme of their URL.  Any other is Celery's own class's business."""


KEY_VALUES: dict[str, Callable[[Any, str], KeyValueStore]] = {
    "sqlite": connect_sqlite.open_key_values,
    **dict.fromkeys(connect_postgres.SCHEMES, connect_postgres.open_key_values),
    **dict.fromkeys(REDIS_SCHEMES, connect_redis.open_key_values),
}
"""The key-value stores, by the scheme of a broker's or a result store's URL."""


def has_engine(url: str) -> bool:
    """Whether there is an engine for a broker at this URL."""
    return scheme_of(url) in BROKERS


def open_broker(app: Any, *, answer_seconds: float | None = None) -> Broker:
    """A new broker object for the app's broker.

    Raises:
        ConfigurationError: there is no engine for it; the text names the way out.
    """
    url = broker_url(app)
    opener = BROKERS.get(scheme_of(url))
    if opener is None:
        known = ", ".join(f"{scheme}://" for scheme in sorted(BROKERS))
        raise ConfigurationError(
            f"Celeriac has no engine for {scheme_of(url)}:// brokers yet; it has {known}. "
            "Until then run this app with `celery worker`"
        )
    return opener(app, url, answer_seconds, open_backend(app))


def open_backend(app: Any) -> Backend | None:
    """A new object for the app's result store; ``None`` when results are off or Celery's own class writes them."""
    url = result_url(app)
    opener = BACKENDS.get(scheme_of(url)) if url else None
    return opener(app, str(url)) if opener is not None else None


def open_key_values(app: Any) -> KeyValueStore:
    """A new object for the store of what policies share: the broker's, else the result store's, or ``celeriac_state_url``.

    Raises:
        ConfigurationError: neither can keep it; the text names the way out.
    """
    url = check_key_values(app)
    return KEY_VALUES[scheme_of(url)](app, url)


def check_key_values(app: Any) -> str:
    """The URL of the store that :func:`open_key_values` opens.  Raises ``ConfigurationError`` as it does."""
    candidates = [app.conf.get("celeriac_state_url") or "", broker_url(app), result_url(app) or ""]
    for url in filter(None, candidates):
        if scheme_of(url) in KEY_VALUES:
            return url
    known = ", ".join(f"{scheme}://" for scheme in sorted(KEY_VALUES))
    raise ConfigurationError(
        "This needs a store for what workers share, and neither the broker nor the result store is one: "
        f"set celeriac_state_url to one of {known}"
    )


def result_url(app: Any) -> str | None:
    """The result store that the app means: where the broker is the embedded default, results are in the same file."""
    url = app.backend_cls or app.conf.result_backend
    if url is None and getattr(app, "embedded", False) and app.conf.broker_url == EMBEDDED_URL:
        return EMBEDDED_URL
    return url if isinstance(url, str) else None


def queue_names(app: Any) -> list[str]:
    """Names of the queues that a worker of this app consumes when it is not told otherwise."""
    return list(app.amqp.queues.consume_from)


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


_key_values = PerProcess()


def key_values(app: Any) -> KeyValueStore:
    """The key-value store of this app, one object per process.  Raises ``ConfigurationError`` as :func:`open_key_values`."""
    store: KeyValueStore = _key_values.get(app, open_key_values)
    return store
