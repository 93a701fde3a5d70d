"""One effect for one idempotency key: whoever runs, however often, and whatever dies."""

from __future__ import annotations

import os
import re
import time

import pytest
from celery import chain

from celeriac import Celery
from celeriac.errors import ConfigurationError
from celeriac.keyvalue import Claim
from celeriac.keyvalues.sqlite import SQLiteKeyValues
from celeriac.policies import renewal
from celeriac.policies.idempotency import SPACE, IdempotencyConflict
from celeriac.policies.keys import BrokenKey
from celeriac.policies.renewal import Renewer
from tests.apps import once
from tests.helpers import wait_until
from tests.stages import STORES, each_stage
from tests.workers import Worker

KILLS = 2


@pytest.fixture(params=["sqlite"])
def stage(request, tmp_path):
    yield from each_stage(request, tmp_path, "tests.apps.once")


@pytest.fixture
def tasks(stage):
    return once.declare(stage.client)


def started(stage, order):
    return len(stage.effects.of("started", order))


# -- one after the other -----------------------------------------------------------------------------------------------


def test_the_first_success_wins_and_later_runs_return_its_result(stage, tasks):
    with stage.worker(concurrency=2) as worker:
        assert tasks["charge"].delay("1").get(timeout=10) == {"order": "1"}
        assert tasks["charge"].delay(order="1").get(timeout=10) == {"order": "1"}
        line = chain(tasks["charge"].s("1"), tasks["plain"].s()).delay()
        assert line.get(timeout=10) == {"order": "1"}
        assert tasks["charge"].delay("2").get(timeout=10) == {"order": "2"}
        assert [len(tasks["bulky"].delay("big").get(timeout=10)) for _ in range(2)] == [100_000] * 2
        assert "is not run: it has succeeded with this idempotency key, tests.apps.once.charge:order:1" in worker.log()

    assert stage.effects.count("charged") == {"1": 1, "2": 1}
    assert started(stage, "big") == 1


@pytest.mark.parametrize("how", ["retry", "fail", "ignore", "crash", "slow"])
def test_only_a_success_counts_however_the_first_run_ended(stage, tasks, how):
    options = {"time_limit": 1} if how == "slow" else {}
    with stage.worker(concurrency=2):
        first = tasks["unsteady"].apply_async(("1", how, "never"), **options)
        wait_until(lambda: started(stage, "1"), 10)
        stage.wait_until_drained()
        second = tasks["unsteady"].delay("1", how)
        assert second.get(timeout=10) == "good"
        assert tasks["unsteady"].delay("1").get(timeout=10) == "good"
    assert started(stage, "1") == 2
    assert first.id != second.id


def test_a_success_is_forgotten_after_its_time(stage, tasks):
    with stage.worker(concurrency=1):
        assert tasks["failing"].delay("1").get(timeout=10) == "first"
        wait_until(lambda: tasks["failing"].delay("1").get(timeout=10) and started(stage, "1") == 2, 10, interval=0.3)


def test_a_call_without_what_its_key_needs_is_refused_when_it_is_sent_and_again_by_the_worker(stage, tasks):
    with pytest.raises(BrokenKey, match=r"needs 'order.id', and the argument 'order' has no 'id'"):
        tasks["nested"].delay({"no": 1})
    with pytest.raises(BrokenKey, match=r"idempotency_key of task tests.apps.once.torn raised KeyError: 'id'"):
        tasks["torn"].delay({"no": 1})
    with pytest.raises(BrokenKey, match=r"'order.id', which is None"):
        tasks["nested"].apply_async(({"id": None},))
    bare = Celery("bare", broker=stage.broker_url, backend=stage.backend_url, set_as_current=False)
    with stage.worker(concurrency=1):
        result = bare.send_task(tasks["nested"].name, ({"no": 1},))
        with pytest.raises(Exception, match=r"has no 'id'"):
            result.get(timeout=10)
    assert [letter.reason for letter in stage.dead()] == ["invalid"]


# -- at the same time --------------------------------------------------------------------------------------------------


def test_a_second_run_waits_without_holding_a_slot(stage, tasks):
    with stage.worker(concurrency=2):
        first = tasks["charge"].delay("1", "gate")
        wait_until(lambda: started(stage, "1"), 10)
        others = [tasks["charge"].delay("1", "gate") for _ in range(4)]
        wait_until(lambda: stage.broker.depth(["celery"])[0].scheduled == 4, 10)
        assert tasks["plain"].delay(5).get(timeout=10) == 5
        stage.effects.open_gate("gate")
        assert [result.get(timeout=15) for result in (first, *others)] == [{"order": "1"}] * 5
    assert stage.effects.count("charged") == {"1": 1}


def test_a_second_run_is_skipped_or_fails_where_the_task_says_so(stage, tasks):
    with stage.worker(concurrency=3):
        tasks["skipping"].delay("s", "gate")
        tasks["failing"].delay("f", "gate")
        wait_until(lambda: started(stage, "s") and started(stage, "f"), 10)
        skipped, failed = tasks["skipping"].delay("s", "gate"), tasks["failing"].delay("f", "gate")
        with pytest.raises(IdempotencyConflict, match="runs with the same key"):
            failed.get(timeout=10)
        stage.effects.open_gate("gate")
        stage.wait_until_drained()
        assert skipped.state == "PENDING"
    assert (started(stage, "s"), started(stage, "f")) == (1, 1)


@pytest.mark.parametrize("stage", STORES, indirect=True)
def test_twenty_workers_run_one_order_and_are_killed(stage, tasks):
    """Four nodes of five slots; whoever runs the order is killed, again and again."""
    conf = {"celeriac_max_crashes": 10}
    nodes = [stage.worker(name=f"node{n}", concurrency=5, conf=conf) for n in range(4)]
    for node in nodes:
        node.launch()
    try:
        results = [tasks["charge"].delay("1", "gate") for _ in range(20)]
        for kill in range(1, KILLS + 1):
            wait_until(lambda kill=kill: started(stage, "1") == kill, 30)
            runner = stage.effects.of("started", "1")[-1]
            os.kill(runner.pid, 9)
            died = time.time()
            wait_until(lambda kill=kill: started(stage, "1") > kill, 30)
            again = stage.effects.of("started", "1")[kill].at
            assert again - died < 15
        wait_until(lambda: started(stage, "1"), 30)
        stage.effects.open_gate("gate")
        assert [result.get(timeout=30) for result in results] == [{"order": "1"}] * 20
        stage.wait_until_drained()
    finally:
        for node in nodes:
            node.close()
    assert stage.effects.count("charged") == {"1": 1}
    assert started(stage, "1") == KILLS + 1
    assert stage.dead() == []


# -- the key of a long run ---------------------------------------------------------------------------------------------


def test_the_key_of_a_long_run_is_kept_and_that_of_an_ended_one_is_not(tmp_path, monkeypatch):
    clock = [1_700_000_000.0]
    store = SQLiteKeyValues(tmp_path / "keys.sqlite3", clock=lambda: clock[0])
    renewer = Renewer(lambda: store, SPACE)
    for name in ("long", "ended"):
        store.claim(Claim(SPACE.name, name, "me", b"", renewal.HELD_SECONDS))
        renewer.hold(name, "me")
    renewer.drop("ended", "me")
    begun = time.monotonic()

    for seconds in range(0, 300, 10):
        clock[0] += 10
        renewer.run_once(begun + seconds + 10)

    _, found = store.read(SPACE, ["long", "ended"])
    assert [entry is not None for entry in found] == [True, False]


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idempotency_key": "order:{ordr_id}"}, "names the argument 'ordr_id', which there is not.*'order_id'"),
        ({"idempotency_key": ""}, "is empty"),
        ({"idempotency_key": []}, "names of arguments"),
        ({"idempotency_ttl": 5}, "idempotency_ttl and no idempotency_key"),
        ({"idempotency_key": "{order_id}", "idempotency_ttl": 0}, "seconds above 0"),
        ({"idempotency_key": "{order_id}", "idempotency_conflict": "wiat"}, "Did you mean 'wait'"),
        ({"idempotency_keys": "{order_id}"}, "Did you mean 'idempotency_key'"),
    ],
)
def test_options_that_cannot_work_are_refused_when_the_task_is_declared(options, message):
    app = Celery("declared", broker="sqlite:///unused.sqlite3", set_as_current=False)

    def t(order_id): ...

    with pytest.raises(ConfigurationError, match=message):
        app.task(t, name="t", lazy=False, shared=False, **options)


def test_a_worker_without_a_place_for_what_tasks_share_does_not_start(rabbitmq_url, tmp_path):
    worker = Worker(tmp_path, rabbitmq_url, "rpc://", app="tests.apps.once")
    worker.launch()
    assert worker.wait(60) != 0
    last = worker.log().strip().split("\n")[-1]
    assert re.search(
        r"Task tests\.apps\.once\.\w+ has \w+, which needs a store .* set celeriac_state_url to a redis://", last
    )

    conf = {"celeriac_state_url": f"sqlite:///{tmp_path}/state.sqlite3"}
    with Worker(tmp_path, rabbitmq_url, "rpc://", app="tests.apps.once", conf=conf, name="two"):
        pass
