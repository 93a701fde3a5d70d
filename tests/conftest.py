"""Servers for the tests.  A missing one skips what needs it, by name; under CI it is an error."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from celeriac.postgres_store import PostgresOptions, PostgresStore
from tests.proxy import FaultProxy
from tests.server_postgres import PostgresServer
from tests.server_rabbitmq import RabbitServer
from tests.servers import DATABASES, RedisServer, ServerMissing

collect_ignore = ["apps"]
"""A project of users there has tests of its own, which are run as users run them."""

_database_numbers = itertools.count()


@contextmanager
def _servers_may_be_missing() -> Iterator[None]:
    try:
        yield
    except ServerMissing as error:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(f"CI must not skip: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    with _servers_may_be_missing():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with _servers_may_be_missing():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Find what a module has left open at its own end: the collector would find it in the middle of some later test."""
    if nextitem is None or nextitem.nodeid.partition("::")[0] != item.nodeid.partition("::")[0]:
        gc.collect()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for the whole run, without persistence.  Tests must not stop it: see ``redis_server``."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> Iterator[str]:
    """An empty database of the shared server.  Its number is not used again for many tests to come."""
    number = next(_database_numbers) % DATABASES
    with shared_redis.client(number) as client:
        client.flushdb()
        yield shared_redis.database_url(number)
        client.flushdb()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of the test's own, to kill, pause and restart.  It is persistent: what it confirmed survives."""
    with RedisServer(persistent=True) as server:
        yield server


@pytest.fixture
def proxy(shared_redis: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    """A faulty way to the database of ``redis_url``, as ``proxy.url``."""
    with FaultProxy(shared_redis.port, database=int(redis_url.rpartition("/")[2])) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One server for the whole run.  Tests must not stop it: see ``postgres_server``."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_database(shared_postgres: PostgresServer) -> str:
    """A database with a Celeriac schema; :func:`postgres_url` empties it for each test."""
    name = shared_postgres.new_database()
    store = PostgresStore(PostgresOptions(shared_postgres.database_url(name)))
    store.prepare()
    store.close()
    return name


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer, postgres_database: str) -> Iterator[str]:
    """A database of the shared server, with an empty Celeriac schema and nobody connected."""
    yield shared_postgres.database_url(postgres_database)
    shared_postgres.empty(postgres_database)


@pytest.fixture
def postgres_proxy(shared_postgres: PostgresServer, postgres_url: str) -> Iterator[FaultProxy]:
    """A faulty way to the database of ``postgres_url``, as ``proxy.url``."""
    template = postgres_url.replace(f":{shared_postgres.port}/", ":{port}/")
    with FaultProxy(shared_postgres.port, template=template) as proxy:
        yield proxy


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A server of the test's own, to kill, pause and restart."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_rabbitmq() -> Iterator[RabbitServer]:
    """One server for the whole run.  Tests must not stop it: see ``rabbitmq_server``."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbitmq_url(shared_rabbitmq: RabbitServer) -> Iterator[str]:
    """An empty virtual host of the shared server."""
    with shared_rabbitmq.vhost() as url:
        yield url


@pytest.fixture(scope="session")
def mortal_rabbitmq() -> Iterator[RabbitServer]:
    """One server for all tests that stop and kill it."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbitmq_server(mortal_rabbitmq: RabbitServer) -> RabbitServer:
    """A running server to kill and restart.  Each test takes a virtual host of its own."""
    return mortal_rabbitmq if mortal_rabbitmq.pid else mortal_rabbitmq.start()
