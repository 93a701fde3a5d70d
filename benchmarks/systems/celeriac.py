"""Celeriac on Redis, and on a SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from benchmarks import envelopes
from benchmarks.site import Site
from benchmarks.systems.base import Part
from benchmarks.systems.celery import QUEUE, CeleryMessages
from celeriac.broker import Broker
from celeriac.brokers.redis import RedisBroker
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.message import Message

BATCH = 10_000
WORKER = ["--pool=processes", "--concurrency=2", "--loglevel=WARNING"]


class Celeriac(CeleryMessages):
    name = "celeriac"
    title = "Celeriac"
    settings = "--pool=processes --concurrency=2, acknowledged late"
    app = "benchmarks.apps.celeriac_app"
    packages = ("celeriac", "celery", "kombu", "redis", "hiredis")
    rate = 30_000

    def workers(self) -> list[list[str]]:
        return [["celeriac", "-A", self.app, "worker", *WORKER]]

    def fill(self, site: Site, envelope: bytes, count: int, due: float | None) -> None:
        broker = self.broker(site)
        for batch in envelopes.copies(envelope, count, BATCH):
            broker.publish([Message(QUEUE, raw, due=due) for raw in batch])

    def remaining(self, site: Site) -> int:
        return self.ready(site) + self.broker(site).leased_count()

    def ready(self, site: Site) -> int:
        return self.broker(site).depth([QUEUE])[0].ready

    def broker(self, site: Site) -> Broker:
        """The benchmark's own, without added delay."""
        return site.keep(self.name, lambda: self.make_broker(site))

    def make_broker(self, site: Site) -> Broker:
        return RedisBroker.from_url(site.near_url)


class CeleriacSQLite(Celeriac):
    name = "celeriac-sqlite"
    title = "Celeriac on SQLite"
    settings = "as on Redis; one file for queue and results, synchronous=FULL, on the disk that has /tmp"
    rate = 5000
    on_redis = False

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": f"sqlite:///{_path(site)}"}

    def capture(self, site: Site, message: Part) -> bytes:
        self.produce(site, "each", [message])
        with contextlib.closing(sqlite3.connect(_path(site))) as connection:
            ((envelope,),) = connection.execute("SELECT raw FROM messages UNION ALL SELECT raw FROM scheduled")
        self.broker(site).purge(QUEUE)
        return bytes(envelope)

    def make_broker(self, site: Site) -> Broker:
        return SQLiteBroker(_path(site))


def _path(site: Site) -> Path:
    return site.directory / "celeriac.sqlite3"


class BareLoop:
    """What works in place of a worker, on any broker; put it before the system whose worker that is."""

    settings = "2 processes of benchmarks/limit.py: lease 100, decode, call, settle"

    def workers(self) -> list[list[str]]:
        return [["python", "-m", "benchmarks.limit"]] * 2


class Limit(BareLoop, Celeriac):
    name = "limit"
    title = "the limit"
    app = "benchmarks.apps.celery_app"
    rate = 40_000
