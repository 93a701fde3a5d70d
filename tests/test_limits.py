"""Limits on tasks (soft and hard time limits) and on the processes that run them (tasks, memory, their number)."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from tests.helpers import wait_until
from tests.workers import Stage


@pytest.fixture
def stage(tmp_path, redis_url):
    with Stage(tmp_path, redis_url) as stage:
        yield stage


def elapsed(action):
    started = time.monotonic()
    answer = action()
    return answer, time.monotonic() - started


def assert_hard_limit(stage, task, key, seconds=3.0):
    """The waiter gets the limit's error soon after it, and the body ran once."""
    result = stage.send(task, key)

    def wait():
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=10)

    _, took = elapsed(wait)
    assert took < seconds
    assert len(stage.effects.of("started", key)) == 1
    letters = [letter for letter in stage.dead() if letter.task_id == result.id]
    assert [letter.reason for letter in letters] == ["time_limit"]


@pytest.mark.parametrize("pool", ["processes", "threads", "solo", "asyncio"])
def test_a_soft_limit_can_be_caught(stage, pool):
    with stage.worker(pool=pool, concurrency=4) as worker:
        for task in ("softly_asleep", "softly_busy", "softly_async"):
            assert stage.send(task, task).get(timeout=10) == "caught"
        failing = stage.send("softly_failing", "failing")
        with pytest.raises(SoftTimeLimitExceeded):
            failing.get(timeout=10)
        told = re.escape(f"exceeded for {stage.module}.softly_failing[{failing.id}]")
        assert re.search(rf"Soft time limit \([\d.]+s\) {told}", worker.log())
        assert stage.send("note", "after").get(timeout=10) == "after"


def test_a_hard_limit_costs_the_task_its_process_and_nobody_else_anything(stage):
    with stage.worker(concurrency=2) as worker:
        bystander = stage.send("hold", "bystander", "gate")
        stage.wait_for("started", "bystander")
        for task in ("asleep", "busy", "stubborn", "asleep_async"):
            others = stage.send_many("note", [f"{task}-{n}" for n in range(20)])
            assert_hard_limit(stage, task, task)
            assert [other.get(timeout=10) for other in others]
        assert len(stage.effects.of("caught", "stubborn")) == 1
        stage.effects.open_gate("gate")
        assert bystander.get(timeout=10) == "bystander"
        wait_until(lambda: len(worker.slots()) == 2)
        assert set(stage.effects.count("ran").values()) == {1}


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
def test_a_hard_limit_ends_what_can_be_interrupted_where_tasks_share_a_process(stage, pool):
    with stage.worker(pool=pool, concurrency=3) as worker:
        bystander = stage.send("hold", "bystander", "gate") if pool != "solo" else None
        for task in ("busy", "asleep_async"):
            assert_hard_limit(stage, task, task)
        stage.effects.open_gate("gate")
        assert bystander is None or bystander.get(timeout=10) == "bystander"
        assert stage.send("note", "after").get(timeout=10) == "after"
        assert worker.process.poll() is None


def test_limits_of_the_worker_and_of_a_call(stage):
    with stage.worker(options=["--time-limit=1", "--soft-time-limit=0.3"]):
        by_worker = stage.send("pause", "by-worker", 20)
        with pytest.raises(SoftTimeLimitExceeded):
            by_worker.get(timeout=5)
        by_call = stage.send("pause", "by-call", 20, time_limit=0.5, soft_time_limit=5)
        with pytest.raises(TimeLimitExceeded):
            by_call.get(timeout=5)
        assert stage.send("pause", "longer", 0.5, soft_time_limit=5).get(timeout=5) == "longer"


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_limits_that_come_when_a_task_is_just_ending_hit_nobody_else(stage, pool):
    with stage.worker(pool=pool, concurrency=4) as worker:
        slots = worker.slots()
        with stage.client.batch():
            results = [stage.send("short", str(n), soft_time_limit=0.0101 + n % 20 / 10_000) for n in range(400)]
        for n, result in enumerate(results):
            try:
                assert result.get(timeout=20) == str(n)
            except SoftTimeLimitExceeded:
                continue
        # Every thread and every process still serves.
        together = [stage.send("hold", f"all-{n}", "gate") for n in range(4)]
        for n in range(4):
            stage.wait_for("started", f"all-{n}")
        stage.effects.open_gate("gate")
        assert all(result.get(timeout=10) for result in together)
        assert worker.slots() == slots


def test_a_process_runs_exactly_as_many_tasks_as_it_may(stage):
    with stage.worker(concurrency=2, options=["--max-tasks-per-child=5"]):
        results = stage.send_many("note", [str(n) for n in range(50)])
        assert [result.get(timeout=20) for result in results]
        stage.wait_until_drained()
    runs = Counter(effect.pid for effect in stage.effects.of("ran"))
    assert sum(runs.values()) == 50
    assert max(runs.values()) == 5
    assert sum(count == 5 for count in runs.values()) >= 8
    assert stage.dead() == []


def test_a_process_that_took_too_much_memory_is_replaced(stage):
    with stage.worker(concurrency=1, options=["--max-memory-per-child=250000"]):
        with stage.client.batch():
            results = [stage.send("hoard", str(n), 60) for n in range(6)]
        pids = [result.get(timeout=20) for result in results]
        stage.wait_until_drained()
    assert len(set(pids)) >= 2
    assert set(stage.effects.count("ran").values()) == {1}
    assert stage.dead() == []


def test_slots_come_with_the_load_and_go_without_it(stage):
    with stage.worker(options=["--autoscale=4,1"], env={"AUTOSCALE_KEEPALIVE": "0.5"}) as worker:
        assert len(worker.slots()) == 1
        results = [stage.send("hold", f"k{n}", "gate") for n in range(8)]
        wait_until(lambda: len(stage.effects.of("started")) == 4, 15)
        assert len(worker.slots()) == 4
        stage.effects.open_gate("gate")
        assert [result.get(timeout=10) for result in results]
        wait_until(lambda: len(worker.slots()) == 1, 15)
        assert stage.send("note", "after").get(timeout=10) == "after"
        assert set(stage.effects.count("started").values()) == {1}
