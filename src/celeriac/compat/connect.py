"""From an app's configuration to the stores that it means."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat import (
    connect_kombu,
    connect_memory,
    connect_postgres,
    connect_rabbitmq,
    connect_redis,
    connect_sqlite,
)
from celeriac.errors import ConfigurationError
from celeriac.keyvalue import KeyValueStore
from celeriac.settings import EngineSettings

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
    url = url or CELERYS_DEFAULT
    return _from_parts(app.conf) if app.conf.broker_transport and "://" not in str(url) else str(url)


def _from_parts(conf: Any) -> str:
    """The URL that the settings of old times mean, one for each of its parts."""
    user, password = quote(str(conf.broker_user or ""), safe=""), quote(str(conf.broker_password or ""), safe="")
    login = f"{user}:{password}@" if user or password else ""
    port = f":{conf.broker_port}" if conf.broker_port else ""
    vhost = str(conf.broker_vhost or "").lstrip("/")
    return f"{conf.broker_transport}://{login}{conf.broker_host or 'localhost'}{port}/{vhost}"


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


KEY_VALUES: dict[str, Callable[..., KeyValueStore]] = {
    "memory": connect_memory.open_key_values,
    "sqlite": connect_sqlite.open_key_values,
    **dict.fromkeys(connect_postgres.SCHEMES, connect_postgres.open_key_values),
    **dict.fromkeys(REDIS_SCHEMES, connect_redis.open_key_values),
}
"""The key-value stores, by the scheme of a broker's or a result store's URL.  Called with the app, the URL, and ``apart``: whether the broker
is of another kind, whose options say nothing about this store.
"""


def has_engine(url: str) -> bool:
    """Whether there is an engine for a broker at this URL, or kombu has a transport for it."""
    return scheme_of(url) in BROKERS or connect_kombu.is_known(url)


def open_broker(app: Any, *, answer_seconds: float | None = None) -> Broker:
    """A new broker object for the app's broker.

    Raises:
        ConfigurationError: there is no engine for it; the text names the way out.
    """
    url = broker_url(app)
    opener = BROKERS.get(scheme_of(url))
    if opener is None and connect_kombu.is_known(url):
        opener = connect_kombu.open_broker
    if opener is None:
        engines, others = (
            ", ".join(f"{each}://" for each in sorted(known)) for known in (BROKERS, connect_kombu.OTHERS)
        )
        raise ConfigurationError(
            f"There is no broker for {scheme_of(url)}:// URLs. Engines: {engines}. By kombu: {others}"
        )
    return opener(app, url, answer_seconds, open_backend(app))


def check_worker(app: Any, engine: EngineSettings) -> None:
    """See whether the app's broker can do what a worker is to do.  Raises ``ConfigurationError`` with the way out."""
    url = broker_url(app)
    if scheme_of(url) not in BROKERS and connect_kombu.is_known(url):
        connect_kombu.check_worker(app, url, engine)


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
    opener = KEY_VALUES[scheme_of(url)]
    return opener(app, url, apart=KEY_VALUES.get(scheme_of(broker_url(app))) is not opener)


def check_key_values(app: Any, who: str = "This", *, elsewhere: bool = False) -> str:
    """The URL of the store that :func:`open_key_values` opens.  Raises ``ConfigurationError`` as it does; ``who`` needs the store.

    ``elsewhere``: what is written there is for other processes, to which a ``memory://`` says nothing.
    """
    candidates = [app.conf.get("celeriac_state_url") or "", broker_url(app), result_url(app) or ""]
    for url in filter(None, candidates):
        if scheme_of(url) in KEY_VALUES and not (elsewhere and scheme_of(url) == "memory"):
            return url
    raise ConfigurationError(
        f"{who} needs a store for what workers share, and neither the broker nor the result store is one: "
        "set celeriac_state_url to a redis://, postgresql:// or sqlite:// URL"
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

    def all(self) -> list[tuple[int, Any]]:
        """All objects, each with the id of the process that it belongs to."""
        with self._lock:
            return list(self._made.values())


_producers = PerProcess()

HASTY_SECONDS = (2.0, 1.0, 0.5, 0.2, 0.1)
"""How long the broker objects of those senders wait for an answer that have less time than the usual."""

_hasty_producers = {seconds: PerProcess() for seconds in HASTY_SECONDS}


def producer(app: Any, seconds: float = PRODUCER_ANSWER_SECONDS) -> Broker:
    """The broker object that this process sends with, which waits no longer than about so many seconds for an answer."""
    broker: Broker
    if seconds >= PRODUCER_ANSWER_SECONDS:
        broker = _producers.get(app, _open_producer)
        return broker
    hasty = next((step for step in HASTY_SECONDS if step <= seconds), HASTY_SECONDS[-1])
    broker = _hasty_producers[hasty].get(app, lambda app: open_broker(app, answer_seconds=hasty))
    return broker


def _open_producer(app: Any) -> Broker:
    return open_broker(app, answer_seconds=PRODUCER_ANSWER_SECONDS)


_key_values = PerProcess()


def key_values(app: Any) -> KeyValueStore:
    """The key-value store of this app, one object per process.  Raises ``ConfigurationError`` as :func:`open_key_values`."""
    store: KeyValueStore = _key_values.get(app, open_key_values)
    return store


_passing_key_values = PerProcess()


def passing_key_values(app: Any) -> KeyValueStore:
    """The same store for what need not survive a power cut: SQLite does not wait for the disk then."""
    store: KeyValueStore = _passing_key_values.get(app, _open_passing_key_values)
    return store


def _open_passing_key_values(app: Any) -> KeyValueStore:
    url = check_key_values(app)
    if scheme_of(url) == "sqlite":
        return connect_sqlite.open_key_values(app, url, synchronous="NORMAL")
    return open_key_values(app)
