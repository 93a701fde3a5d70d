"""The PostgreSQL result store under stock Celery: a stock worker, a stock producer, and nothing but a URL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import celery
import pytest
from celery import chord, group

from celeriac.backends.postgres import PostgresBackend
from celeriac.compat.stores import EngineResults
from celeriac.postgres_store import PostgresOptions
from tests.conformance.kits import record
from tests.helpers import wait_until
from tests.servers import die_with_parent

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def url(shared_postgres):
    return shared_postgres.database_url(shared_postgres.new_database())


@pytest.fixture(scope="module")
def app(shared_redis, url):
    broker = shared_redis.database_url(990)
    app = celery.Celery("stock", broker=broker, backend=url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture(scope="module")
def worker(app, url, tmp_path_factory):
    log = tmp_path_factory.mktemp("stock") / "worker.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": app.conf.broker_url, "TEST_BACKEND": url}
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.stock", "worker", "-c2", "-lINFO", "--without-gossip"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*die_with_parent(), *command], env=environment, cwd=log.parent, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: " ready." in log.read_text(), 30, log.read_text)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def task(app, name, *args):
    return app.signature(f"tests.apps.stock.{name}", args)


def test_the_url_finds_the_store(app):
    assert type(app.backend) is EngineResults


def test_a_result_comes_by_notification(app, worker):
    assert task(app, "add", 1, 1).delay().get(timeout=20) == 2
    result = task(app, "add", 2, 3).apply_async(countdown=1)
    trips = app.backend.store.round_trips
    assert result.get(timeout=10) == 5
    assert result.state == "SUCCESS"
    assert app.backend.store.round_trips - trips < 12


def test_an_error_comes_back_as_it_was_raised(app, worker):
    result = task(app, "fail").delay()
    with pytest.raises(KeyError, match="missing"):
        result.get(timeout=20)
    assert "KeyError" in result.traceback


def test_groups_and_chords(app, worker):
    many = group(task(app, "add", n, n) for n in range(5)).apply_async()
    assert many.get(timeout=20) == [0, 2, 4, 6, 8]
    many.save()
    assert app.GroupResult.restore(many.id).get(timeout=5) == [0, 2, 4, 6, 8]
    callback = chord([task(app, "add", n, 1) for n in range(10)])(task(app, "total"))
    assert callback.get(timeout=20) == 55


def test_results_are_forgotten_and_expire_by_the_task_that_celery_sends(app, url):
    app.backend.store.store([record("old")])
    assert not app.backend.supports_autoexpire
    time.sleep(0.01)
    short = celery.Celery("short", broker="memory://", backend=url, set_as_current=False)
    short.conf.result_expires = 0.01
    short.tasks["celery.backend_cleanup"]()
    assert PostgresBackend(PostgresOptions(url)).fetch(["old"]) == [None]


def test_no_text_for_people_has_the_password():
    app = celery.Celery("x", backend="postgresql://user:sesame@localhost/db", set_as_current=False)
    assert app.backend.as_uri(include_password=False) == "postgresql://user:**@localhost/db"
