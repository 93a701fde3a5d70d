"""Kombu's transport for ``postgresql://`` URLs."""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from celeriac.brokers.postgres import PostgresBroker
from celeriac.compat.transport.postgres_mailboxes import PostgresMailboxes
from celeriac.compat.transport.store import Store, StoreTransport
from celeriac.postgres_store import PostgresOptions
from celeriac.postgres_store.options import safe_url

_stores: dict[PostgresOptions, Store] = {}
_lock = threading.Lock()

_OPTIONS = ("schema", "application_name", "notify", "migrate")


class Transport(StoreTransport):
    """See :mod:`celeriac.compat.transport.store`."""

    driver_type = "postgresql"

    def open_store(self, client: Any) -> Store:
        """The schema's object, one per process: connections are shared."""
        given = client.transport_options
        known = {name: given[name] for name in _OPTIONS if name in given}
        options = PostgresOptions(client.hostname, **known)
        with _lock:
            found = _stores.get(options)
            if found is None:
                broker = PostgresBroker(options)
                found = _stores[options] = Store(broker, PostgresMailboxes(broker.database))
            return found

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The URL."""
        return uri if include_password else safe_url(uri)

    def driver_version(self) -> str:
        """Of the library that is under it."""
        return psycopg.__version__
