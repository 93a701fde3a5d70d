"""A node that is killed, paused or cut off: others take its work over, and it cannot get in their way."""

from __future__ import annotations

import os
import signal
import time

import pytest
from celery.exceptions import WorkerLostError

from tests.helpers import wait_until
from tests.workers import Stage

LEASE_SECONDS = 2
CONF = {"celeriac_lease_seconds": LEASE_SECONDS}


@pytest.fixture(params=["redis", "sqlite", "postgres", "rabbitmq"])
def stage(request, tmp_path):
    url = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    results = f"sqlite:///{tmp_path}/results.sqlite3" if request.param == "rabbitmq" else None
    with Stage(tmp_path, url, results, conf=CONF) as stage:
        yield stage


def pause(worker):
    """Stop all processes of a node in their tracks, the supervisor first."""
    pids = [worker.pid, *worker.slots()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def test_the_work_of_a_node_that_was_killed_is_taken_over_within_the_lease(stage):
    with stage.worker(name="one") as first:
        late = stage.send("hold_late", "late", "gate")
        early = stage.send("hold", "early", "gate")
        stage.wait_for("started", "late")
        stage.wait_for("started", "early")
        with stage.worker(name="two") as second:
            first.signal(signal.SIGKILL)
            killed_at = time.time()
            again = stage.wait_for("started", "late", times=2)[1]
            assert again.pid in second.slots()
            assert again.at - killed_at < LEASE_SECONDS + 0.5
            stage.effects.open_gate("gate")
            assert late.get(timeout=10) == "late"
            with pytest.raises(WorkerLostError, match="may have run"):
                early.get(timeout=10)
            stage.wait_until_drained()
            assert [letter.reason for letter in stage.dead()] == ["lost"]
            assert stage.effects.count("ran") == {"late": 1}


def test_a_node_that_was_paused_beyond_its_lease_is_fenced_off(stage):
    with stage.worker(name="one", concurrency=1) as first:
        result = stage.send("hold_late", "k", "gate")
        stage.wait_for("started", "k")
        with stage.worker(name="two", concurrency=1) as second:
            pids = pause(first)
            again = stage.wait_for("started", "k", times=2)[1]
            assert again.pid in second.slots()
            stage.effects.open_gate("gate")
            assert result.get(timeout=10) == "k"
            stage.wait_until_drained()
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
            wait_until(lambda: first.slots() and pids[1] not in first.slots(), 10, "the fenced slot goes on")
            after = stage.send_many("note", [f"after-{n}" for n in range(20)])
            assert [each.get(timeout=10) for each in after]
        assert len(stage.effects.of("started", "k")) == 2
        assert result.get(timeout=1) == "k"
        assert stage.dead() == []
        stage.wait_until_drained()


def test_a_node_that_was_paused_beyond_its_lease_alone_keeps_its_work(stage):
    with stage.worker(name="one", concurrency=1) as worker:
        result = stage.send("hold_late", "k", "gate")
        stage.wait_for("started", "k")
        pids = pause(worker)
        wait_until(stage.broker.expired, LEASE_SECONDS + 2)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not stage.broker.expired(), 5)
        stage.effects.open_gate("gate")
        assert result.get(timeout=10) == "k"
        assert stage.effects.count("started") == {"k": 1}
