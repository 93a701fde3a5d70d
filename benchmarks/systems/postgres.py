"""Systems on PostgreSQL.

One server for each measurement, on the disk that has /tmp: ``fsync``, ``full_page_writes`` and ``synchronous_commit`` on,
256 MB of shared buffers, the rest as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from benchmarks.site import Site
from benchmarks.systems.base import Part, System
from benchmarks.systems.celeriac import BareLoop, Celeriac
from benchmarks.systems.celery import QUEUE, CeleryPrefork
from celeriac.broker import Broker
from celeriac.brokers.postgres import PostgresBroker
from celeriac.postgres_store import PostgresOptions
from tests.server_postgres import PostgresServer

DURABLE = ("fsync = on", "full_page_writes = on", "synchronous_commit = on", "shared_buffers = 256MB")


def server_of(site: Site) -> PostgresServer:
    """The measurement's PostgreSQL, started when it is first asked for."""
    return site.keep("postgres", lambda: PostgresServer(DURABLE).start())


class Session:
    """A connection for looking from outside."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def count(self, statement: bytes) -> int:
        row = self._connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        self._connection.close()


def count(site: Site, statement: bytes) -> int:
    return site.keep("session", lambda: Session(server_of(site).url)).count(statement)


class CeleriacPostgres(Celeriac):
    name = "celeriac-postgres"
    title = "Celeriac on PostgreSQL"
    settings = "as on Redis; results in the same schema; fsync and synchronous_commit on"
    packages = ("celeriac", "celery", "kombu", "psycopg")
    rate = 8000
    on_redis = False

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": server_of(site).url}

    def capture(self, site: Site, message: Part) -> bytes:
        self.produce(site, "each", [message])
        ((envelope,),) = server_of(site).execute(
            "SELECT raw FROM celeriac.messages UNION ALL SELECT raw FROM celeriac.scheduled"
        )
        self.broker(site).purge(QUEUE)
        return bytes(envelope)

    def make_broker(self, site: Site) -> Broker:
        return PostgresBroker(PostgresOptions(server_of(site).url))


class LimitPostgres(BareLoop, CeleriacPostgres):
    name = "limit-postgres"
    title = "the limit on PostgreSQL"


class Procrastinate(System):
    name = "procrastinate"
    title = "Procrastinate"
    settings = "2 processes, 100 jobs at a time, finished jobs deleted; results are not kept"
    app = "benchmarks.apps.procrastinate_app"
    packages = ("procrastinate", "psycopg")
    rate = 500
    on_redis = False

    def workers(self) -> list[list[str]]:
        options = ["--concurrency", "100", "--delete-jobs", "always"]
        return [["procrastinate", "--app", f"{self.app}.app", "worker", *options]] * 2

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": server_of(site).url}

    def remaining(self, site: Site) -> int:
        return count(site, b"SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")


class PgQueuer(System):
    name = "pgqueuer"
    title = "PgQueuer"
    settings = (
        "2 processes, asyncpg, uvloop, 100 jobs per batch, durable tables; each job's status in its log; "
        "results on: its return value, too, by the app's INSERT for many jobs at once"
    )
    app = "benchmarks.apps.pgqueuer_app"
    packages = ("pgqueuer", "asyncpg", "uvloop")
    rate = 3000
    on_redis = False

    def workers(self) -> list[list[str]]:
        return [["python", "-m", self.app]] * 2

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": server_of(site).url, "PGDSN": server_of(site).url}

    def remaining(self, site: Site) -> int:
        return count(site, b"SELECT count(*) FROM pgqueuer")


class CeleriacResults(Celeriac):
    name = "celeriac-results"
    title = "Celeriac, results in PostgreSQL"
    settings = "broker Redis, results in PostgreSQL; fsync and synchronous_commit on"
    rate = 8000

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_RESULT_URL": server_of(site).url}


class CeleryDatabase(CeleryPrefork):
    name = "celery-database"
    title = "Celery, db+postgresql"
    settings = "as Celery prefork; results through SQLAlchemy and psycopg; fsync and synchronous_commit on"
    app = "benchmarks.apps.celery_db_app"
    packages = ("celery", "sqlalchemy", "psycopg")
    isolated = True
    rate = 200

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_RESULT_URL": server_of(site).url.replace("postgresql://", "db+postgresql+psycopg://")}
