"""A process that is killed at any point of a settle: one outcome is recorded, and what follows is sent once."""

from __future__ import annotations

import itertools

import pytest
from celery import chord, group

from tests.helpers import wait_until
from tests.workers import Stage

APP = "tests.apps.settling"

_numbers = itertools.count(1)

TURNS = ["turn before any", "turn after any"]
CHORD_TURNS = ["turn before parts", "turn after parts", "turn before done", "turn after done"]
APART = ["store before any", "store after any", *TURNS]
CHORD_APART = [
    *("count_parts before any", "count_parts after any", "chord_parts before any", "chord_parts after any"),
    *("turn before done", "turn after done", "finish_chord before any", "finish_chord after any"),
]
ACKNOWLEDGEMENTS = ["early", "late"]


@pytest.fixture(scope="module")
def stages(request, shared_redis, tmp_path_factory):
    """One worker for each way to keep queues and results, which lives through all explosions."""
    started = {}

    def start(kind):
        if kind not in started:
            directory = tmp_path_factory.mktemp(kind)
            redis = shared_redis.database_url(900 + len(started))
            broker = None if kind == "sqlite" else redis
            backend = f"sqlite:///{directory}/results.sqlite3" if kind == "apart" else None
            if kind == "postgres":
                server = request.getfixturevalue("shared_postgres")
                broker = server.database_url(server.new_database())
            stage = Stage(directory, broker, backend, app=APP)
            started[kind] = stage, stage.worker().start()
        return started[kind][0]

    yield start
    for stage, worker in started.values():
        worker.close()
        stage.close()


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def stage(request, stages):
    return stages(request.param)


@pytest.fixture
def apart(stages):
    return stages("apart")


@pytest.fixture
def key():
    return f"k{next(_numbers)}"


class Explosion:
    """Lays the bomb; afterwards it must have gone off."""

    def __init__(self, stage, point):
        self.stage, self.bomb = stage, stage.directory / "bomb"
        self.bomb.write_text(point)
        self.before = self.count()

    def count(self):
        return len(list(self.stage.directory.glob("exploded-*")))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        wait_until(lambda: self.count() > self.before or error[0], 10, "the bomb did not go off")
        self.bomb.unlink(missing_ok=True)
        if error[0] is None:
            self.stage.wait_until_drained()


def effects(stage, key):
    found = {}
    for effect in stage.effects.all():
        if effect.key == key:
            found[effect.event] = found.get(effect.event, 0) + 1
    return found


def dead_of(stage, result):
    return [letter for letter in stage.dead() if letter.task_id == result.id]


# -- one store for queues and results ----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_result(stage, ack, point, key):
    with Explosion(stage, point):
        result = stage.send(ack, key)
        assert result.get(timeout=10) == key
    assert effects(stage, key) == {"ran": 1}


@pytest.mark.parametrize("point", TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_retry(stage, ack, point, key):
    with Explosion(stage, point):
        result = stage.send(f"retried_{ack}", key)
        assert result.get(timeout=10) == key
    assert effects(stage, key) == {"attempt-0": 1, "attempt-1": 1, "ran": 1}
    assert dead_of(stage, result) == []


@pytest.mark.parametrize("point", TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_callbacks(stage, ack, point, key):
    with Explosion(stage, point):
        stage.send(ack, key, link=stage.signature("follow", key))
        stage.wait_for("followed", key)
    assert effects(stage, key) == {"ran": 1, "followed": 1}


@pytest.mark.parametrize("point", TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_the_next_link_of_a_chain(stage, ack, point, key):
    with Explosion(stage, point):
        result = (stage.signature(ack, key) | stage.signature("follow", key)).apply_async()
        assert result.get(timeout=10) == key
    assert effects(stage, key) == {"ran": 1, "followed": 1}


@pytest.mark.parametrize("point", TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_failure_with_its_error_callback_and_its_dead_letter(stage, ack, point, key):
    with Explosion(stage, point):
        result = stage.send(f"failing_{ack}", key, link_error=stage.signature("mourn", key))
        with pytest.raises(ValueError, match=key):
            result.get(timeout=10)
        stage.wait_for("mourned", key)
    assert effects(stage, key) == {"ran": 1, "mourned": 1}
    assert [letter.reason for letter in dead_of(stage, result)] == ["failed"]


@pytest.mark.parametrize("point", CHORD_TURNS)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_chord(stage, ack, point, key):
    assert_chord_fires_once(stage, ack, point, key)


def assert_chord_fires_once(stage, ack, point, key):
    with Explosion(stage, point):
        header = group(stage.signature(ack, key) for _ in range(3))
        result = chord(header, stage.signature("follow", key))()
        assert result.get(timeout=10) == [key] * 3
    assert effects(stage, key) == {"ran": 3, "followed": 1}


# -- results in another store ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", APART)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_result_that_is_kept_apart(apart, ack, point, key):
    with Explosion(apart, point):
        assert apart.send(ack, key).get(timeout=10) == key
    assert effects(apart, key) == {"ran": 1}


@pytest.mark.parametrize("point", APART)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_the_next_link_of_a_chain_with_results_apart(apart, ack, point, key):
    with Explosion(apart, point):
        result = (apart.signature(ack, key) | apart.signature("follow", key)).apply_async()
        assert result.get(timeout=10) == key
    assert effects(apart, key) == {"ran": 1, "followed": 1}


@pytest.mark.parametrize("point", APART)
@pytest.mark.parametrize("ack", ACKNOWLEDGEMENTS)
def test_a_retry_with_results_apart(apart, ack, point, key):
    with Explosion(apart, point):
        assert apart.send(f"retried_{ack}", key).get(timeout=10) == key
    assert effects(apart, key) == {"attempt-0": 1, "attempt-1": 1, "ran": 1}


@pytest.mark.parametrize("point", CHORD_APART)
def test_a_chord_with_results_apart(apart, point, key):
    assert_chord_fires_once(apart, "late", point, key)


# -- the rescuer is killed, too ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "when"), [("redis", "before"), ("sqlite", "after")])
def test_a_node_that_dies_while_it_rescues_a_slot_is_rescued_by_another(request, tmp_path, kind, when, key):
    url = request.getfixturevalue("redis_url") if kind == "redis" else None
    conf = {"celeriac_lease_seconds": 2}
    with Stage(tmp_path, url, app=APP, conf=conf) as stage, stage.worker(name="one"), stage.worker(name="two"):
        tmp_path.joinpath("bomb-of-slot").write_text("turn before any")
        tmp_path.joinpath("bomb-of-rescuer").write_text(f"settle_condemned {when} any")
        result = stage.send("late", key, link=stage.signature("follow", key))
        stage.wait_for("followed", key, timeout=20)
        assert result.get(timeout=10) == key
        stage.wait_until_drained()
        assert len(list(tmp_path.glob("exploded-*"))) == 2
        # A rescuer that died before it wrote anything took the outcome with it: only the body runs again.
        assert effects(stage, key) == {"ran": 2 if when == "before" else 1, "followed": 1}
