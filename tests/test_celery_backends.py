"""Result stores that Celery has and Celeriac has not: its own classes, behind Celeriac's worker."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from celery import chain, chord, group

from celeriac import Celery
from celeriac.errors import ConfigurationError
from tests.helpers import wait_until
from tests.test_settling import Explosion, dead_of, effects
from tests.workers import Stage

APP = "tests.apps.settling"

_numbers = itertools.count(1)

POINTS = ["_store_result before any", "_store_result after any", "turn before any", "turn after any"]


def backend_url(kind, directory):
    if kind == "db":
        return f"db+sqlite:///{directory}/results.sqlite3"
    directory.joinpath("results").mkdir()
    return f"file://{directory}/results"


@pytest.fixture(scope="module", params=["db", "file"])
def stage(request, shared_redis, tmp_path_factory):
    directory = tmp_path_factory.mktemp(f"celerys-{request.param}")
    broker = shared_redis.database_url(930 if request.param == "db" else 931)
    conf = {"result_chord_retry_interval": 0.2}
    with (
        Stage(directory, broker, backend_url(request.param, directory), app=APP, conf=conf) as stage,
        stage.worker(),
    ):
        yield stage


@pytest.fixture
def db(stage):
    if not stage.backend_url.startswith("db+"):
        pytest.skip("once is enough")
    return stage


@pytest.fixture
def key():
    return f"c{next(_numbers)}"


def get(result, timeout=15):
    return result.get(timeout=timeout, interval=0.05)


def test_results_and_failures(stage, key):
    assert get(stage.send("late", key)) == key
    with pytest.raises(ValueError, match=key):
        get(stage.send("failing_late", key))


def test_a_retry_and_a_chain(stage, key):
    assert get(stage.send("retried_late", key)) == key
    assert get(chain(stage.signature("late", key), stage.signature("follow", key)).apply_async()) == key


def test_a_chord_by_polling(stage, key):
    header = group(stage.signature("late", f"{key}-{n}") for n in range(3))
    result = chord(header, stage.signature("follow", key))()
    assert get(result) == [f"{key}-{n}" for n in range(3)]
    assert effects(stage, key) == {"followed": 1}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("ack", ["early", "late"])
def test_a_process_that_is_killed_between_result_and_settle(db, ack, point, key):
    """The result is written first; a redelivery that finds it sends what follows it and is settled without running."""
    with Explosion(db, point):
        result = db.send(ack, key, link=db.signature("follow", key))
        if point == "_store_result before any" and ack == "early":
            with pytest.raises(Exception, match="acknowledged early"):
                get(result)
            assert [letter.reason for letter in dead_of(db, result)] == ["lost"]
        else:
            assert get(result) == key
            db.wait_for("followed", key)
    # Where the result was not written yet, a task that is acknowledged late runs again.
    found = effects(db, key)
    assert found.pop("followed", 0) == (0 if "before" in point and ack == "early" and "store" in point else 1)
    assert found == {"ran": 2 if point == "_store_result before any" and ack == "late" else 1}


def test_results_expire_when_they_are_cleaned_up(tmp_path):
    app = Celery("expiring", backend=f"db+sqlite:///{tmp_path}/results.sqlite3", set_as_current=False)
    app.conf.result_expires = timedelta(seconds=-1)
    app.backend.store_result("old", 1, "SUCCESS")
    assert app.AsyncResult("old").get(timeout=5) == 1
    app.backend.cleanup()
    assert wait_until(lambda: app.AsyncResult("old").state == "PENDING")


def test_a_backend_that_is_not_known_is_refused():
    app = Celery("unknown", backend="pigeon://loft", set_as_current=False)
    with pytest.raises(ConfigurationError, match="no result store for 'pigeon'"):
        app.backend.get_result("x")
