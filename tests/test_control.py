"""Remote control: a worker answers, obeys, and survives its broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import celery
import pytest
import redis
from kombu.exceptions import OperationalError

from celeriac.compat.control.memory import Counts, Record
from celeriac.compat.control.orders import overlap
from tests.helpers import wait_until
from tests.workers import ROOT, Stage

APP = "tests.apps.remote"
NODE = "one@test"


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def stage(request, tmp_path):
    broker = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    with Stage(tmp_path, broker, app=APP) as stage:
        yield stage


@pytest.fixture
def sqlite_stage(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        yield stage


def ask(client, command, *, timeout=5.0, **arguments):
    """The one worker's answer."""
    replies = client.control.broadcast(command, arguments, reply=True, timeout=timeout, limit=1)
    assert replies, f"nobody answered {command}"
    return replies[0][NODE]


def ask_when_it_listens(client, command, **arguments):
    """A worker that is ready takes a moment more to listen."""
    wait_until(lambda: client.control.ping(timeout=0.5, limit=1), message="the worker does not listen")
    return ask(client, command, **arguments)


def until(client, condition, command, message="", **arguments):
    """Ask until the answer is as wanted; return it."""
    answers = []

    def good():
        answers.append(ask(client, command, **arguments))
        return condition(answers[-1])

    wait_until(good, 15.0, lambda: f"{message} {command} answered {answers[-1]}", interval=0.05)
    return answers[-1]


# -- who answers ------------------------------------------------------------------------------------------------------


def test_a_worker_answers_a_ping(stage):
    with stage.worker():
        assert ask_when_it_listens(stage.client, "ping") == {"ok": "pong"}


def test_the_commands_of_stock_celery_reach_our_worker(redis_url, tmp_path):
    stock = celery.Celery("stock", broker=redis_url, backend=redis_url, set_as_current=False)
    with Stage(tmp_path, redis_url, app=APP) as stage, stage.worker():
        ask_when_it_listens(stage.client, "ping")
        found = subprocess.run(
            [sys.executable, "-m", "celery", "-b", stage.broker_url, "inspect", "-j", "-t", "3", "ping"],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert json.loads(found.stdout) == {NODE: {"ok": "pong"}}

        stock.control.revoke("gone")
        until(stage.client, lambda ids: "gone" in ids, "revoked")
    stock.close()


def test_our_command_line_reaches_a_worker_on_the_embedded_default(sqlite_stage):
    with sqlite_stage.worker():
        ask_when_it_listens(sqlite_stage.client, "ping")
        for words in (["status"], ["inspect", "active_queues"], ["inspect", "report"], ["control", "pool_grow", "1"]):
            found = run_command(sqlite_stage, *words)
            assert found.returncode == 0, found.stderr
            assert NODE in found.stdout


def run_command(stage, *words):
    return subprocess.run(
        [sys.executable, "-m", "celeriac.cli.main", "-b", stage.broker_url, "--result-backend", stage.backend_url, *words],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


def test_purge_call_and_result_work_from_the_command_line(stage):
    called = run_command(stage, "call", f"{APP}.note", "-a", '["x"]')
    task_id = called.stdout.strip()
    with stage.worker():
        assert stage.client.AsyncResult(task_id).get(timeout=10) == "x"
        assert "x" in run_command(stage, "result", task_id).stdout
    stage.send("note", "never")

    assert "Purged 1 message" in run_command(stage, "purge", "-f").stdout
    assert stage.is_drained()


def test_two_workers_answer_each_for_itself(stage):
    with stage.worker(name="one"), stage.worker(name="two"):
        wait_until(lambda: len(stage.client.control.ping(timeout=1, limit=2)) == 2, 15)
        replies = stage.client.control.ping(destination=["two@test"], timeout=3)

    assert replies == [{"two@test": {"ok": "pong"}}]


# -- inspect ----------------------------------------------------------------------------------------------------------


def test_what_runs_is_listed_as_celery_lists_it(stage):
    with stage.worker():
        result = stage.send("hold", "a", "gate")
        stage.wait_for("started", "a")

        (task,) = ask_when_it_listens(stage.client, "active")
        assert (task["id"], task["name"], task["args"]) == (result.id, f"{APP}.hold", ["a", "gate"])
        assert task["hostname"] == NODE
        assert abs(task["time_start"] - time.time()) < 30
        assert task["worker_pid"] == stage.effects.of("started", "a")[0].pid
        assert ask(stage.client, "query_task", ids=[result.id])[result.id][0] == "active"
        stage.effects.open_gate("gate")
        assert result.get(timeout=10) == "a"
        until(stage.client, lambda tasks: tasks == [], "active")
        assert ask(stage.client, "stats")["total"] == {f"{APP}.hold": 1}


def test_what_is_not_due_yet_is_listed_as_scheduled(stage):
    assert_lists_what_is_not_due(stage)


def test_what_is_not_due_yet_is_listed_as_scheduled_on_rabbitmq(rabbitmq_url, redis_url, tmp_path):
    with Stage(tmp_path, rabbitmq_url, redis_url, app=APP) as stage:
        assert_lists_what_is_not_due(stage)


def assert_lists_what_is_not_due(stage):
    with stage.worker():
        result = stage.send("note", "later", countdown=600, priority=3)

        (entry,) = ask_when_it_listens(stage.client, "scheduled")
        assert entry["request"]["id"] == result.id
        assert entry["request"]["args"] == ["later"]
        about = entry["request"]["delivery_info"]
        assert (about["routing_key"], about["priority"], entry["priority"]) == ("celery", 3, 6)
        assert ask(stage.client, "query_task", ids=[result.id])[result.id][0] == "scheduled"


@pytest.mark.parametrize("pool", ["processes", "threads", "solo"])
def test_a_worker_of_any_pool_describes_itself(sqlite_stage, pool):
    with sqlite_stage.worker(pool=pool) as worker:
        stats = ask_when_it_listens(sqlite_stage.client, "stats")
        assert stats["pid"] == worker.pid
        assert stats["pool"]["max-concurrency"] == (1 if pool == "solo" else 2)
        assert {queue["name"] for queue in ask(sqlite_stage.client, "active_queues")} == {"celery"}
        assert f"{APP}.note" in ask(sqlite_stage.client, "registered")
        assert ask(sqlite_stage.client, "conf")["task_acks_late"] is False
        assert ask(sqlite_stage.client, "clock")["clock"] > 0
        assert "celery" in ask(sqlite_stage.client, "report")["ok"]
        assert ask(sqlite_stage.client, "reserved") == []


def test_commands_that_users_registered_work(sqlite_stage):
    with sqlite_stage.worker():
        answer = ask_when_it_listens(sqlite_stage.client, "whoami")
        assert answer == {"app": "survival", "hostname": NODE, "slots": 2}
        assert ask(sqlite_stage.client, "add_up", n=3) == {"ok": 4}
        assert "state.consumer.qos is not supported by Celeriac yet" in ask(sqlite_stage.client, "prefetch")["error"]


def test_what_cannot_be_done_is_said_with_a_way_out(sqlite_stage):
    impossible = {
        "election": {"id": "1", "topic": "x"},
    }
    with sqlite_stage.worker():
        ask_when_it_listens(sqlite_stage.client, "ping")
        for command, arguments in impossible.items():
            assert "is not supported by Celeriac yet: " in ask(sqlite_stage.client, command, **arguments)["error"]


def test_unknown_commands_and_tasks_are_errors_and_not_silence(sqlite_stage):
    with sqlite_stage.worker():
        assert "error" in ask_when_it_listens(sqlite_stage.client, "make_coffee")
        assert ask(sqlite_stage.client, "rate_limit", task_name="no", rate_limit="1/s") == {"error": "unknown task"}
        assert ask(sqlite_stage.client, "time_limit", task_name="no") == {"error": "unknown task"}
        assert "error" in ask(sqlite_stage.client, "autoscale", max=3)


# -- revoke -----------------------------------------------------------------------------------------------------------


def test_a_revoked_task_does_not_run_whether_it_is_queued_or_scheduled(stage):
    blocked = stage.send("hold", "a", "gate")
    behind = stage.send("note", "behind")
    with stage.worker(concurrency=1) as worker:
        stage.wait_for("started", "a")
        scheduled = stage.send("note", "scheduled", countdown=2)
        ask_when_it_listens(stage.client, "revoke", task_id=[behind.id, scheduled.id])

        assert {behind.state, scheduled.state} == {"REVOKED"}
        stage.effects.open_gate("gate")
        assert blocked.get(timeout=10) == "a"
        stage.wait_until_drained()
        assert {behind.id, scheduled.id} == set(ask(stage.client, "revoked"))
        assert worker.stop() == 0
    assert not stage.effects.of("ran", "behind")
    assert not stage.effects.of("ran", "scheduled")
    assert behind.state == "REVOKED"


def test_slots_that_start_later_know_what_is_revoked(sqlite_stage):
    stage = sqlite_stage
    with stage.worker(concurrency=1) as worker:
        scheduled = stage.send("note", "x", countdown=3)
        ask_when_it_listens(stage.client, "revoke", task_id=scheduled.id)
        (slot,) = worker.slots()
        worker_slot_dies(stage, worker, slot)
        stage.wait_until_drained()
        assert scheduled.state == "REVOKED"
    assert not stage.effects.of("ran", "x")


def worker_slot_dies(stage, worker, slot):
    os.kill(slot, signal.SIGKILL)
    wait_until(lambda: worker.slots() not in ([], [slot]), message="no new slot")


def test_a_revoke_is_remembered_by_the_next_worker_with_a_state_file(sqlite_stage, tmp_path):
    stage = sqlite_stage
    options = [f"--statedb={tmp_path}/state-%n"]
    scheduled = stage.send("note", "x", countdown=600)
    with stage.worker(options=options) as worker:
        ask_when_it_listens(stage.client, "revoke", task_id=scheduled.id)
        worker.stop()
    with stage.worker(options=options):
        assert ask_when_it_listens(stage.client, "revoked") == [scheduled.id]


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_terminating_ends_the_task_and_nothing_else(sqlite_stage, pool):
    stage = sqlite_stage
    with stage.worker(pool=pool) as worker:
        victim, other = stage.send("hold", "victim", "never"), stage.send("hold", "other", "gate")
        stage.wait_for("started", "victim")
        stage.wait_for("started", "other")

        answer = ask_when_it_listens(stage.client, "revoke", task_id=victim.id, terminate=True, signal="SIGTERM")
        assert answer == {"ok": f"terminate: {victim.id}"}
        with pytest.raises(celery.exceptions.TaskRevokedError):
            victim.get(timeout=10)
        stage.effects.open_gate("gate")
        assert other.get(timeout=10) == "other"
        assert worker.stop() == 0
    assert not stage.effects.of("ran", "victim")
    assert stage.dead() == []


def test_terminating_with_sigusr1_raises_the_soft_limit_in_the_task(sqlite_stage):
    stage = sqlite_stage
    with stage.worker(concurrency=1):
        result = stage.send("nap", "x")
        pid = stage.wait_for("started", "x")[0].pid
        ask_when_it_listens(stage.client, "revoke", task_id=result.id, terminate=True, signal="SIGUSR1")

        assert stage.wait_for("interrupted", "x")[0].pid == pid
        assert wait_until(lambda: result.state == "FAILURE")


def test_terminating_what_does_not_run_says_so(sqlite_stage):
    with sqlite_stage.worker():
        answer = ask_when_it_listens(sqlite_stage.client, "revoke", task_id="nobody", terminate=True)
    assert answer == {"ok": "terminate: tasks unknown"}


def test_tasks_are_revoked_by_their_stamps(sqlite_stage):
    stage = sqlite_stage
    with stage.worker() as worker:
        ask_when_it_listens(stage.client, "revoke_by_stamped_headers", headers={"batch": ["b1"]})
        marked, other = stage.signature("note", "marked"), stage.signature("note", "other")
        marked.stamp(batch="b1")
        other.stamp(batch="b2")
        with pytest.raises(celery.exceptions.TaskRevokedError):
            marked.apply_async().get(timeout=10)
        assert other.apply_async().get(timeout=10) == "other"
        assert "(revoked by header: {'batch': 'b1'})" in worker.log()
    assert not stage.effects.of("ran", "marked")


# -- control ----------------------------------------------------------------------------------------------------------


def test_time_limits_can_be_set_while_the_worker_runs(sqlite_stage):
    stage = sqlite_stage
    with stage.worker(concurrency=1):
        assert stage.send("note", "first").get(timeout=10) == "first"
        answer = ask_when_it_listens(stage.client, "time_limit", task_name=f"{APP}.nap", soft=0.3, hard=20.0)
        assert answer == {"ok": "time limits set successfully"}

        stage.send("nap", "x")
        stage.wait_for("interrupted", "x")


def test_the_pool_grows_shrinks_and_restarts(sqlite_stage):
    stage = sqlite_stage
    with stage.worker(concurrency=1, conf={"worker_pool_restarts": True}) as worker:
        assert ask_when_it_listens(stage.client, "pool_grow", n=2) == {"ok": "pool will grow"}
        wait_until(lambda: len(worker.slots()) == 3)
        assert ask(stage.client, "pool_shrink", n=2) == {"ok": "pool will shrink"}
        wait_until(lambda: len(worker.slots()) == 1)
        before = worker.slots()
        assert ask(stage.client, "pool_restart") == {"ok": "reload started"}
        wait_until(lambda: len(worker.slots()) == 1 and worker.slots() != before)
        assert stage.send("note", "x").get(timeout=10) == "x"
        assert "error" in ask(stage.client, "pool_shrink", n=5)


def test_the_limits_of_the_autoscaler_can_be_changed(sqlite_stage):
    with sqlite_stage.worker(options=["--autoscale=3,1"]):
        answer = ask_when_it_listens(sqlite_stage.client, "autoscale", max=5, min=2)
        assert answer == {"ok": "autoscale now max=5 min=2"}
        assert "autoscale" in ask(sqlite_stage.client, "pool_grow")["error"]
        until(sqlite_stage.client, lambda stats: stats["pool"]["max-concurrency"] == 2, "stats")


def test_a_worker_is_shut_down_from_afar(stage):
    with stage.worker() as worker:
        assert ask_when_it_listens(stage.client, "shutdown") == {"ok": "shutting down"}
        assert worker.wait() == 0


# -- brokers that go away ---------------------------------------------------------------------------------------------


def test_remote_control_comes_back_with_the_broker(redis_server, tmp_path):
    with Stage(tmp_path, redis_server.url, app=APP) as stage, stage.worker() as worker:
        ask_when_it_listens(stage.client, "ping")
        redis_server.restart()

        def answers():
            try:
                return stage.client.control.ping(timeout=1, limit=1)
            except (OperationalError, redis.ConnectionError):  # the client's own connections break as well
                return None

        assert wait_until(answers, 30.0, message="remote control is gone for good") == [{NODE: {"ok": "pong"}}]
        assert worker.process.poll() is None


def test_a_worker_waits_for_its_broker_without_remote_control_in_the_way(redis_server, tmp_path):
    redis_server.stop()
    with Stage(tmp_path, redis_server.url, app=APP) as stage:
        worker = stage.worker()
        try:
            worker.launch()
            wait_until(lambda: "Remote control does not hear the broker" in worker.log(), 20.0, worker.log)
            assert worker.process.poll() is None
            redis_server.start()
            ask_when_it_listens_later = wait_until(lambda: stage.client.control.ping(timeout=1, limit=1), 30.0)
            assert ask_when_it_listens_later == [{NODE: {"ok": "pong"}}]
        finally:
            worker.close()


# -- its parts --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_last_written():
    record = Record()
    assert record.read() is None
    for value in ({"revoked": ["x" * 36] * 1000}, {"revoked": []}):
        record.write(value)
        assert record.read() == value


def test_counts_are_by_name_and_unknown_names_are_left_out():
    counts = Counts(["a", "b"])
    counts.take_row()
    for name in ("a", "b", "a", "c"):
        counts.add(name)
    assert counts.totals() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("stamp", "revoked", "expected"),
    [("a", ["a"], True), (["x", "a"], ["a"], True), (None, [None], False), ("b", ["a"], False), ([], ["a"], False)],
)
def test_a_stamp_may_be_one_value_or_several(stamp, revoked, expected):
    assert bool(overlap(stamp, revoked)) is expected
