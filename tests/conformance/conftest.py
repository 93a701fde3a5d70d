"""Every broker and every backend, on a real store of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.brokers.postgres import PostgresBroker
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.redis import RedisBroker
from celeriac.brokers.sqlite import SQLiteBroker
from tests.conformance.kits import Kit, PostgresKit, RabbitKit, RedisKit, SQLiteKit, owner_of

BROKERS: dict[str, type[Broker]] = {
    "sqlite": SQLiteBroker,
    "redis": RedisBroker,
    "rabbitmq": RabbitBroker,
    "postgres": PostgresBroker,
}
NO_BACKEND = frozenset({"rabbitmq"})
"""Kits that have no result store of their own."""
NO_KEYS = frozenset({"rabbitmq"})
"""Kits that have no key-value store of their own."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a store cannot do and does not claim: ``@pytest.mark.needs("…")`` names the claim."""
    left_out = [item for item in items if not _can(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _can(item)]


def _can(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("kit") if callspec else None
    if name is None:
        return True
    if name in NO_BACKEND and item.path.name == "test_backends.py":
        return False
    if name in NO_KEYS and item.path.name == "test_key_values.py":
        return False
    return all(getattr(BROKERS[name], claim) for marker in item.iter_markers("needs") for claim in marker.args)


@pytest.fixture(params=sorted(BROKERS))
def kit(request, tmp_path) -> Iterator[Kit]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield SQLiteKit(stack, tmp_path / "celeriac.sqlite3")
        elif request.param == "postgres":
            yield PostgresKit(stack, request.getfixturevalue("postgres_url"))
        elif request.param == "rabbitmq":
            yield RabbitKit(stack, request.getfixturevalue("rabbitmq_url"), tmp_path / "results.sqlite3")
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
