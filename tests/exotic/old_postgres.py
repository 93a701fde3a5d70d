"""A real PostgreSQL from before the oldest that will do.  ``scripts/test-versions.sh`` runs it, with ``PG_BIN`` set to one."""

from __future__ import annotations

from contextlib import closing

import pytest

from celeriac.backends.postgres import PostgresBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.errors import SchemaError
from celeriac.postgres_store import PostgresOptions


def test_it_is_refused_in_one_line(shared_postgres):
    options = PostgresOptions(shared_postgres.url)
    with closing(PostgresBroker(options)) as broker, pytest.raises(SchemaError) as by_broker:
        broker.ping()
    with closing(PostgresBackend(options)) as backend, pytest.raises(SchemaError) as by_backend:
        backend.fetch(["t"])
    assert str(by_broker.value) == str(by_backend.value)
    assert "\n" not in str(by_broker.value)
    assert "Celeriac needs 14 or newer" in str(by_broker.value)
