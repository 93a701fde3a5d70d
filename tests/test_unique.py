"""Unique tasks: what is sent, what is not, and when it may be sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import celery
import pytest
from celery import chain, chord, group
from celery.exceptions import WorkerLostError

import celeriac
from celeriac import Celery, NotUnique, upgrade
from celeriac.compat.declaring import check_all
from celeriac.errors import ConfigurationError
from tests.apps import once
from tests.helpers import wait_until
from tests.stages import STORES, each_stage
from tests.workers import ROOT


@pytest.fixture(params=["redis"])
def stage(request, tmp_path):
    yield from each_stage(request, tmp_path, "tests.apps.once")


@pytest.fixture
def tasks(stage):
    return once.declare(stage.client)


def ready(stage):
    return stage.broker.depth(["celery"])[0].ready


def in_a_batch(stage, send):
    with stage.client.batch():
        send()


def scheduled(stage):
    return stage.broker.depth(["celery"])[0].scheduled


# -- sending -----------------------------------------------------------------------------------------------------------


def test_an_equal_task_is_not_sent_and_the_handle_is_that_of_the_first(stage, tasks):
    first = tasks["whole"].delay("a")
    again = tasks["whole"].apply_async(["a"])
    by_name = stage.client.send_task("tests.apps.once.whole", kwargs={"key": "a", "gate": None})
    by_signature = tasks["whole"].si("a").apply_async()
    other = tasks["whole"].delay("b")

    assert {again.id, by_name.id, by_signature.id} == {first.id}
    assert other.id != first.id
    assert ready(stage) == 2


def test_batches_and_groups_hand_out_the_handles_of_what_is_on_its_way(stage, tasks):
    first = tasks["whole"].delay("a")

    with stage.client.batch():
        batched = [tasks["whole"].delay(key) for key in "abb"]
        inner = group(tasks["whole"].si("a"), tasks["whole"].si("c")).delay()
    members = group(tasks["whole"].si("b"), tasks["plain"].si(), tasks["whole"].si("a")).delay().results

    assert [result.id for result in batched] == [first.id, batched[1].id, batched[1].id]
    assert inner.results[0].id == first.id
    assert [members[0].id, members[2].id] == [batched[1].id, first.id]
    assert ready(stage) == 4  # a, b, c and the plain one


def test_the_error_is_raised_where_the_task_asks_for_it(stage, tasks):
    first = tasks["strict"].delay("a")

    with pytest.raises(NotUnique, match=first.id) as caught:
        tasks["strict"].delay("a")
    with pytest.raises(NotUnique):
        in_a_batch(stage, lambda: (tasks["strict"].delay("a"), tasks["plain"].delay()))

    assert caught.value.task_id == first.id
    assert ready(stage) == 2


def test_later_arguments_take_the_place_of_those_on_their_way(stage, tasks):
    results = [tasks["replaced"].delay("a", text) for text in ("one", "two", "three")]
    assert len({result.id for result in results}) == 1
    assert ready(stage) == 1

    with stage.worker(concurrency=1):
        assert results[0].get(timeout=10) == "three"
        stage.wait_until_drained()
        assert tasks["replaced"].delay("a", "four").get(timeout=10) == "four"

    assert stage.effects.count("ran") == {"a=three": 1, "a=four": 1}


def test_a_debounced_task_runs_once_after_the_last_call_with_its_arguments(stage, tasks):
    with stage.worker(concurrency=1):
        first = tasks["debounced"].delay("a", "one")
        wait_until(lambda: scheduled(stage), 5)
        tasks["debounced"].apply_async(("a", "two"), countdown=2)
        last_due = time.time() + 1.9
        assert first.get(timeout=15) == "two"
        stage.wait_until_drained()

    (effect,) = stage.effects.of("ran")
    assert effect.key == "a=two"
    assert effect.at >= last_due


def test_newest_arguments_survive_the_death_of_the_process_that_runs_with_them(stage, tasks):
    tasks["debounced"].apply_async(("a", "one", "gate"), countdown=0.01)
    tasks["debounced"].apply_async(("a", "two", "gate"), countdown=0.01)
    with stage.worker(concurrency=1) as worker:
        started = stage.wait_for("started", "a=two")[0]
        os.kill(started.pid, 9)
        stage.wait_for("started", "a=two", 2)
        stage.effects.open_gate("gate")
        stage.wait_until_drained()
        assert worker.slots()

    assert stage.effects.count("ran") == {"a=two": 1}


# -- until when --------------------------------------------------------------------------------------------------------


def test_a_task_that_is_unique_until_it_starts_can_be_sent_again_then(stage, tasks):
    first = tasks["queued"].delay("a")
    assert tasks["queued"].delay("a").id == first.id
    with stage.worker(concurrency=1):
        first.get(timeout=10)
        assert tasks["queued"].delay("a").id != first.id


def test_a_task_that_is_unique_until_done_cannot_be_sent_while_it_runs(stage, tasks):
    with stage.worker(concurrency=1):
        first = tasks["whole"].delay("a", "gate")
        stage.wait_for("started", "a")
        assert tasks["whole"].delay("a", "gate").id == first.id
        stage.effects.open_gate("gate")
        first.get(timeout=10)
        wait_until(lambda: tasks["whole"].delay("a", "gate").id != first.id, 5)


def test_a_window_is_as_long_as_it_says_whatever_comes_of_the_task(stage, tasks):
    with stage.worker(concurrency=1):
        first = tasks["windowed"].delay("a", 1)
        first.get(timeout=10)
        assert tasks["windowed"].delay("a", 2).id == first.id
        wait_until(lambda: tasks["windowed"].delay("a", 3).id != first.id, 5)


ENDINGS = ["fail", "retry", "ignore", "reject", "crash", "hard_limit", "expire", "revoke"]


def test_the_key_is_free_again_however_the_task_ends(stage, tasks):
    sent = {}
    for how in ENDINGS:
        options = {"hard_limit": {"time_limit": 1}, "expire": {"expires": 0.01}, "revoke": {"countdown": 3}}.get(
            how, {}
        )
        sent[how] = tasks["ends"].apply_async((how, "slow" if how == "hard_limit" else how), **options)
    again = {how: tasks["ends"].apply_async((how, how)).id for how in ENDINGS}
    assert again == {how: result.id for how, result in sent.items()}

    with stage.worker(concurrency=4, conf={"celeriac_max_crashes": 1, "worker_enable_remote_control": True}):
        stage.client.control.revoke(sent["revoke"].id)
        stage.wait_until_drained(40)
    fresh = {how: tasks["ends"].apply_async((how, "done")).id for how in ENDINGS}
    assert not set(fresh.values()) & set(again.values())
    assert stage.effects.count("started")["retry"] == 2


# -- canvas ------------------------------------------------------------------------------------------------------------


def test_what_something_waits_for_is_never_dropped_but_waits_for_its_turn(stage, tasks):
    with stage.worker(concurrency=2):
        holder = tasks["whole"].delay("a", "gate")
        stage.wait_for("started", "a")
        line = chain(tasks["whole"].si("a", "gate"), tasks["plain"].s()).delay()
        both = chord([tasks["whole"].si("a", "gate"), tasks["plain"].si(1)])(tasks["plain"].s())
        follower = chain(tasks["plain"].si(2), tasks["whole"].si("a", "gate")).delay()
        wait_until(lambda: scheduled(stage) == 3, 10)
        assert len(stage.effects.of("started", "a")) == 1
        stage.effects.open_gate("gate")

        assert line.get(timeout=20) == "a"
        assert both.get(timeout=20) == ["a", 1]
        assert follower.get(timeout=20) == "a"
        assert holder.get(timeout=10) == "a"

    spans = sorted((e.at, e.event) for e in stage.effects.all() if e.event in {"started", "ran"})
    assert [event for _, event in spans] == ["started", "ran"] * 4


# -- many producers ----------------------------------------------------------------------------------------------------

PRODUCER = """
import sys, threading
from celeriac import Celery
from tests.apps import once
app = Celery("producer", broker=sys.argv[1], backend=sys.argv[2], set_as_current=False)
task = once.declare(app)["whole"]
barrier, ids = threading.Barrier(int(sys.argv[3])), []
def produce():
    barrier.wait()
    ids.append(task.delay("same").id)
threads = [threading.Thread(target=produce) for _ in range(barrier.parties)]
task.delay("warm")
print("ready", flush=True)
sys.stdin.readline()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(" ".join(ids))
"""


@pytest.mark.parametrize("stage", STORES, indirect=True)
def test_of_two_hundred_producers_one_sends(stage, tasks):
    command = [sys.executable, "-c", PRODUCER, stage.broker_url, stage.backend_url, "50"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    producers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(4)
    ]
    try:
        assert [producer.stdout.readline() for producer in producers] == ["ready\n"] * 4
        warm = ready(stage)
        for producer in producers:
            producer.stdin.write("go\n")
            producer.stdin.flush()
        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda producer: producer.communicate(timeout=60)[0], producers))
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
    ids = [id for output in outputs for id in output.split()]

    assert len(ids) == 200
    assert len(set(ids)) == 1
    assert (warm, ready(stage)) == (1, 2)


@pytest.mark.parametrize("stage", STORES, indirect=True)
def test_a_node_that_is_killed_keeps_no_keys(stage, tasks):
    """Nor that of an order that it had begun."""
    conf = {"celeriac_lease_seconds": 2}
    with stage.worker(name="one", concurrency=3, conf=conf) as first:
        late, early = tasks["whole"].delay("late", "gate"), tasks["early"].delay("early", "gate")
        order = tasks["charge"].delay("order", "gate")
        for key in ("late", "early", "order"):
            stage.wait_for("started", key)
        with stage.worker(name="two", concurrency=3, conf=conf):
            first.signal_group(signal.SIGKILL)
            for key in ("late", "order"):
                stage.wait_for("started", key, times=2, timeout=30)
            assert tasks["whole"].delay("late", "gate").id == late.id
            stage.effects.open_gate("gate")
            assert late.get(timeout=20) == "late"
            assert order.get(timeout=20) == {"order": "order"}
            with pytest.raises(WorkerLostError, match="may have run"):
                early.get(timeout=20)
            assert tasks["early"].delay("early", "gate").get(timeout=20) == "early"
            assert tasks["whole"].delay("late", "gate").id != late.id
            assert tasks["charge"].delay("order", "gate").get(timeout=20) == {"order": "order"}
            stage.wait_until_drained()
    assert stage.effects.count("charged") == {"order": 1}
    assert [letter.reason for letter in stage.dead()] == ["lost"]


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique": "until_dne"}, "unique of task t is one of .* Did you mean 'until_done'"),
        ({"unique": False}, "leave it out"),
        ({"unique_by": ["a"]}, "unique_by and no unique"),
        ({"unique": "window"}, "unique_for=<seconds>"),
        ({"unique": True, "unique_for": -1}, "unique_for of task t must be seconds above 0"),
        ({"unique": True, "unique_by": ["ab"]}, "names the argument 'ab', which there is not.*Did you mean 'a'"),
        ({"unique": True, "unique_by": "x:{b}"}, "names the argument 'b'.*the task's arguments are: a"),
        ({"unique": True, "unique_by": "x:{}"}, "no argument between"),
        ({"unique": True, "unique_by": "x:{a"}, "is no template"),
        ({"unique": True, "unique_by": 5}, "a template such as"),
        ({"unique": True, "unique_conflict": "replace"}, "needs unique='until_started'"),
        ({"unique": "until_started", "unique_conflict": "debounce"}, "unique_delay=<seconds>"),
        ({"unique": True, "unique_delay": 3}, "belongs to unique_conflict='debounce'"),
        ({"unique": True, "unique_conflict": "rase"}, "Did you mean 'raise'"),
        ({"uniqe": True}, "Did you mean 'unique'"),
    ],
)
def test_options_that_cannot_work_are_refused_when_the_task_is_declared(options, message):
    app = Celery("declared", broker="sqlite:///unused.sqlite3", set_as_current=False)

    def t(a): ...

    with pytest.raises(ConfigurationError, match=message):
        app.task(t, name="t", lazy=False, shared=False, **options)


def test_what_it_raises_is_public():
    assert issubclass(celeriac.NotUnique, celeriac.CeleriacError)


@pytest.mark.parametrize("kind", [celery.Celery, Celery])
def test_an_option_that_a_base_class_declares_is_not_taken_for_a_slip_of_the_pen(tmp_path, kind):
    class Singleton(celery.Task):  # as the package celery-singleton has it
        abstract = True
        unique_on = None

    app = kind("addons", broker=f"sqlite:///{tmp_path}/addons.sqlite3", set_as_current=False)
    upgrade(app)

    @app.task(base=Singleton, unique_on=["user"], shared=False)
    def notify(user): ...

    check_all(app)
    assert notify.unique_on == ["user"]
