"""Every broker and every backend, on a real store of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from celeriac.backend import Backend
from celeriac.broker import Broker
from tests.conformance.kits import Kit, PostgresKit, RedisKit, SQLiteKit, owner_of


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def kit(request, tmp_path) -> Iterator[Kit]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield SQLiteKit(stack, tmp_path / "celeriac.sqlite3")
        elif request.param == "postgres":
            yield PostgresKit(stack, request.getfixturevalue("postgres_url"))
        else:
            yield RedisKit(stack, request.getfixturevalue("redis_url"))


@pytest.fixture
def broker(kit: Kit) -> Broker:
    """A broker that writes the results of ``backend`` itself."""
    return kit.broker(kit.backend())


@pytest.fixture
def backend(kit: Kit) -> Backend:
    return kit.backend()


@pytest.fixture
def owner(broker: Broker) -> str:
    return owner_of(broker)
