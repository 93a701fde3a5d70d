"""``postgresql://`` URLs.  (``db+postgresql://`` stays what it is to Celery: its own SQLAlchemy result store.)"""

from __future__ import annotations

from typing import Any

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.compat.dead_limit import dead_limit
from celeriac.compat.durations import seconds
from celeriac.errors import MissingExtra
from celeriac.keyvalue import KeyValueStore

SCHEMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})

_NUMBERS = ("connect_timeout", "answer_timeout")
_GIVEN_AS_THEY_ARE = ("schema", "application_name", "synchronous_commit", "notify", "migrate", "dead_limit")


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    options = broker_options(app, url, answer_seconds)
    from celeriac.brokers.postgres import PRIORITY_STEPS, PostgresBroker

    steps = app.conf.broker_transport_options.get("priority_steps")
    return PostgresBroker(options, results, priority_steps=sorted(steps) if steps else PRIORITY_STEPS)


def open_backend(app: Any, url: str) -> Backend:
    """A result store for this app and URL."""
    options = backend_options(app, url)
    from celeriac.backends.postgres import PostgresBackend

    return PostgresBackend(options, result_ttl=seconds(app.conf.result_expires) or None)


def open_key_values(app: Any, url: str, *, apart: bool) -> KeyValueStore:
    """A key-value store for this app and URL, with the options of the broker or else of the result store at that URL."""
    options = backend_options(app, url) if apart and url == app.conf.result_backend else broker_options(app, url)
    from celeriac.keyvalues.postgres import PostgresKeyValues

    return PostgresKeyValues(options)


def broker_options(app: Any, url: str, answer_seconds: float | None = None) -> Any:
    """How to reach the broker's database: ``broker_transport_options`` over the app's timeouts."""
    given = {**dead_limit(app), **app.conf.broker_transport_options}
    if app.conf.broker_connection_timeout:
        given.setdefault("connect_timeout", app.conf.broker_connection_timeout)
    if answer_seconds is not None:
        given.setdefault("answer_timeout", answer_seconds)
        given["connect_timeout"] = min(float(given.get("connect_timeout", answer_seconds)), answer_seconds)
    return _options(url, given)


def backend_options(app: Any, url: str) -> Any:
    """How to reach the result store's database: ``result_backend_transport_options``."""
    return _options(url, app.conf.get("result_backend_transport_options") or {})


def is_postgres(url: str | None) -> bool:
    """Whether a URL is of this kind."""
    return bool(url) and str(url).partition("://")[0] in SCHEMES


def safe_url(url: str) -> str:
    """The URL without its password."""
    _require_psycopg()
    from celeriac.postgres_store.options import safe_url as without_password

    return without_password(url)


def _options(url: str, given: dict[str, Any]) -> Any:
    _require_psycopg()
    from celeriac.postgres_store import PostgresOptions

    known = {name: given[name] for name in _GIVEN_AS_THEY_ARE if name in given}
    known.update({name: float(given[name]) for name in _NUMBERS if name in given})
    return PostgresOptions(url, **known)


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise MissingExtra("A postgresql:// URL", "postgres") from error


def stores(broker: str, results: str | None, app: Any, instead: str | None = None) -> list[Any]:
    """Every PostgreSQL schema that an app names, each once; reached through the URL ``instead`` if there is one."""
    options = []
    if is_postgres(broker):
        options.append(broker_options(app, instead or broker))
    if is_postgres(results):
        options.append(backend_options(app, instead or str(results)))
    if not options:
        return []
    from celeriac.postgres_store import PostgresStore

    found = {store.address: store for store in map(PostgresStore, options)}
    return list(found.values())
