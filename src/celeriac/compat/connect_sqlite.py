"""The embedded default: ``sqlite://`` URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from celeriac.backend import Backend
from celeriac.backends.sqlite import SQLiteBackend
from celeriac.broker import Broker
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.compat.dead_limit import dead_limit
from celeriac.compat.durations import seconds
from celeriac.errors import ConfigurationError
from celeriac.keyvalue import KeyValueStore
from celeriac.keyvalues.sqlite import SQLiteKeyValues
from celeriac.sqlite_store import Synchronous


def sqlite_path(url: str) -> Path:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``."""
    path = unquote(urlsplit(url).path)[1:]
    if not path:
        raise ConfigurationError(
            f"{url} names no file: write sqlite:///name.sqlite3 or sqlite:////absolute/path.sqlite3"
        )
    return Path(path).absolute()


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    options: dict[str, Any] = {
        name: value for name, value in app.conf.broker_transport_options.items() if name in ("synchronous", "timeout")
    }
    options.update(dead_limit(app))
    if answer_seconds is not None:
        options["timeout"] = min(options.get("timeout", answer_seconds), answer_seconds)
    return SQLiteBroker(sqlite_path(url), **options)


def open_backend(app: Any, url: str) -> Backend:
    """A result store for this app and URL."""
    return SQLiteBackend(sqlite_path(url), result_ttl=seconds(app.conf.result_expires))


def open_key_values(app: Any, url: str, *, apart: bool = False, synchronous: Synchronous = "FULL") -> KeyValueStore:
    """A key-value store for this app and URL."""
    return SQLiteKeyValues(sqlite_path(url), synchronous=synchronous)
