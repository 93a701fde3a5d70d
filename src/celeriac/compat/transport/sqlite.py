"""Kombu's transport for ``sqlite:///file``: the embedded default."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any

from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.compat.transport.sqlite_mailboxes import SQLiteMailboxes
from celeriac.compat.transport.store import Store, StoreTransport
from celeriac.sqlite_store import path_from_url

_stores: dict[str, Store] = {}
_lock = threading.Lock()


class Transport(StoreTransport):
    """See :mod:`celeriac.compat.transport.store`."""

    driver_type = "sqlite"

    def open_store(self, client: Any) -> Store:
        """The file's object, one per process: connections are shared, and survive a fork."""
        path = os.path.abspath(path_from_url(client.hostname))  # noqa: PTH100 - Path.resolve follows links
        with _lock:
            found = _stores.get(path)
            if found is None:
                found = _stores[path] = Store(SQLiteBroker(path), SQLiteMailboxes(path))
            return found

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The URL; there is no password in it."""
        return uri

    def driver_version(self) -> str:
        """Of the library that is under it."""
        return sqlite3.sqlite_version
