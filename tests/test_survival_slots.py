"""A slot that is killed: what it ran, what it had finished, what it had not started, and what others were doing."""

from __future__ import annotations

import os
import signal
import time

import pytest
from celery.exceptions import WorkerLostError

from tests.helpers import wait_until
from tests.workers import Stage, is_alive, measured

KILLS = 20
AGAIN_SECONDS = 1.0


@pytest.fixture(params=["redis", "sqlite", "postgres", "rabbitmq"])
def stage(request, tmp_path):
    url = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    results = f"sqlite:///{tmp_path}/results.sqlite3" if request.param == "rabbitmq" else None
    with Stage(tmp_path, url, results) as stage:
        yield stage


def kill_and_measure(stage, key):
    """Kill the slot that runs the task; return how long it takes until the task is running again, in seconds."""
    victim = stage.wait_for("started", key)[0].pid
    os.kill(victim, signal.SIGKILL)
    killed_at = time.time()
    again = stage.wait_for("started", key, times=2)[1]
    assert again.pid != victim
    return again.at - killed_at


def test_a_late_acknowledged_task_runs_again_within_a_second_and_nothing_else_is_disturbed(stage):
    with stage.worker(concurrency=2) as worker:
        bystander = stage.send("hold", "bystander", "end")
        stage.wait_for("started", "bystander")
        times = []
        for turn in range(KILLS):
            key = f"victim-{turn}"
            small = [f"small-{turn}-{n}" for n in range(10)]
            result = stage.send("hold_late", key, f"gate-{turn}")
            stage.send_many("note", small)
            times.append(kill_and_measure(stage, key))
            stage.effects.open_gate(f"gate-{turn}")
            assert result.get(timeout=10) == key
        stage.effects.open_gate("end")
        assert bystander.get(timeout=10) == "bystander"
        stage.wait_until_drained()
        wait_until(lambda: len(worker.slots()) == 2)
        assert set(stage.effects.count("ran").values()) == {1}
        assert len(stage.effects.of("ran")) == KILLS * 11 + 1
    measured(
        f"running again after a kill: median {sorted(times)[KILLS // 2]:.3f} s, worst of {KILLS}: {max(times):.3f} s"
    )
    assert max(times) < AGAIN_SECONDS
    assert stage.dead() == []


def test_an_early_acknowledged_task_is_never_started_again_and_its_waiter_is_told(stage):
    with stage.worker():
        result = stage.send("kill_early", "k")
        with pytest.raises(WorkerLostError):
            result.get(timeout=10)
        stage.wait_until_drained()
        (letter,) = stage.dead()
        assert (letter.reason, letter.task_id) == ("lost", result.id)
        assert len(stage.effects.of("started", "k")) == 1
        assert stage.send("note", "after").get(timeout=10) == "after"


def test_a_task_that_kills_its_slot_among_many_tiny_ones_disturbs_none_of_them(stage):
    before, after = [f"before-{n}" for n in range(100)], [f"after-{n}" for n in range(100)]
    with stage.client.batch():
        stage.send_many("note", before)
        killer = stage.send("kill_once", "killer")
        stage.send_many("note_late", after)
    with stage.worker(concurrency=1):
        assert killer.get(timeout=10) == "killer"
        stage.wait_until_drained()
    assert stage.effects.count("ran") == dict.fromkeys([*before, "killer", *after], 1)
    assert stage.effects.count("started") == {"killer": 2}
    assert stage.dead() == []


def test_a_task_that_kills_its_slot_every_time_is_given_up_after_a_bounded_number_of_crashes(stage):
    with stage.worker(conf={"celeriac_max_crashes": 2}):
        result = stage.send("kill_always", "poison")
        with pytest.raises(WorkerLostError):
            result.get(timeout=10)
        stage.wait_until_drained()
        (letter,) = stage.dead()
        assert (letter.reason, letter.crashes) == ("poison", 3)
        assert len(stage.effects.of("started", "poison")) == 3
        assert stage.send("note", "after").get(timeout=10) == "after"


@pytest.mark.parametrize("code", [0, 5])
def test_a_task_that_ends_its_process_is_lost_like_one_that_was_killed(stage, code):
    with stage.worker(concurrency=1):
        results = stage.send_many("note", [f"before-{n}" for n in range(5)])
        result = stage.client.send_task("tests.apps.survival.leave", ("k", code))
        after = stage.send_many("note", [f"after-{n}" for n in range(5)])
        with pytest.raises(WorkerLostError, match=f"Worker exited prematurely: exitcode {code}"):
            result.get(timeout=10)
        assert [each.get(timeout=10) for each in (*results, *after)]
        stage.wait_until_drained()
    assert len(stage.effects.of("started", "k")) == 1
    assert set(stage.effects.count("ran").values()) == {1}


def test_slots_do_not_outlive_their_supervisor(stage):
    with stage.worker() as worker:
        stage.send("hold_late", "k", "never")
        stage.wait_for("started", "k")
        slots = worker.slots()
        assert len(slots) == 2
        worker.signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, slots)), 2.0)
