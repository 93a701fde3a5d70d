"""Events: what monitors hear of workers and tasks."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress

import celery
import pytest

from tests.helpers import wait_until
from tests.test_control import APP, NODE, ask, ask_when_it_listens
from tests.workers import Stage


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def stage(request, tmp_path):
    broker = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    with Stage(tmp_path, broker, app=APP) as stage:
        yield stage


class Heard:
    """What a monitor heard."""

    def __init__(self):
        self.events = []

    def of(self, task_id):
        """Events of one task, in order of arrival."""
        return [event for event in self.events if event.get("uuid") == task_id]

    def kinds(self, task_id):
        return [event["type"] for event in self.of(task_id)]

    def wait_for(self, task_id, kind):
        """The task's event of this kind."""
        found = wait_until(
            lambda: [event for event in self.of(task_id) if event["type"] == kind],
            15.0,
            lambda: f"{kind} was not heard, only {self.kinds(task_id)}",
        )
        return found[0]

    def wait_for_worker(self, kind):
        return wait_until(
            lambda: [event for event in self.events if event["type"] == kind], 15.0, f"{kind} was not heard"
        )[-1]


@contextmanager
def monitor(app):
    """Celery's own receiver, in a thread."""
    heard, ended = Heard(), threading.Event()
    listening = threading.Event()

    def listen():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": heard.events.append})
            with receiver.consumer_context() as (own, _channel, _consumers):
                while not ended.is_set():
                    with suppress(socket.timeout):
                        own.drain_events(timeout=0.2)
                    listening.set()  # only now: on Redis kombu subscribes when it first looks, and what was told before is gone

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(10)
    try:
        yield heard
    finally:
        ended.set()
        thread.join()


def test_a_task_is_followed_from_its_queue_to_its_result(stage):
    with monitor(stage.client) as heard, stage.worker(options=["-E"]):
        before = time.time()
        result = stage.send("note", "a", countdown=0.1)
        done = heard.wait_for(result.id, "task-succeeded")

    assert heard.kinds(result.id) == ["task-received", "task-started", "task-succeeded"]
    received = heard.of(result.id)[0]
    assert (received["name"], received["args"], received["kwargs"]) == (f"{APP}.note", "('a',)", "{}")
    assert (received["retries"], received["root_id"], received["parent_id"]) == (0, result.id, None)
    assert received["eta"] is not None
    assert done["result"] == "'a'"
    assert 0 <= done["runtime"] < 5
    for event in heard.of(result.id):
        assert event["hostname"] == NODE
        assert event["pid"] > 0
        assert event["clock"] > 0
        assert before - 1 < event["timestamp"] < time.time() + 1
    assert {"utcoffset", "local_received"} <= done.keys()


def test_the_result_is_there_when_its_event_is_heard(stage):
    with monitor(stage.client) as heard, stage.worker(options=["-E"]):
        for key in range(20):
            result = stage.send("note", key)
            heard.wait_for(result.id, "task-succeeded")
            assert result.state == "SUCCESS"


def test_failures_retries_refusals_and_revocations_are_told_apart(stage):
    with monitor(stage.client) as heard, stage.worker(options=["-E"]):
        revoked = stage.send("note", "revoked", countdown=1)
        ask_when_it_listens(stage.client, "revoke", task_id=revoked.id)
        failed, retried, rejected = stage.send("fail"), stage.send("retry_once", "r"), stage.send("reject")
        expired = stage.send("note", "late", expires=-5)

        failure = heard.wait_for(failed.id, "task-failed")
        assert failure["exception"] == "ValueError('as asked')"
        assert "raise ValueError" in failure["traceback"]
        assert heard.wait_for(retried.id, "task-retried")["exception"] == "KeyError('first')"
        assert heard.wait_for(retried.id, "task-succeeded")["result"] == "'r'"
        assert heard.wait_for(rejected.id, "task-failed")["exception"] == "reject requeue=False: no thanks"
        revocation = heard.wait_for(revoked.id, "task-revoked")
        assert (revocation["expired"], revocation["terminated"]) == (False, False)
        assert heard.wait_for(expired.id, "task-revoked")["expired"] is True
        assert "task-received" not in heard.kinds(expired.id)  # as on Celery, which looks before it says so


def test_the_end_of_a_lost_process_is_told_by_the_supervisor(tmp_path):
    with (
        Stage(tmp_path, app=APP) as stage,
        monitor(stage.client) as heard,
        stage.worker(options=["-E"], concurrency=1),
    ):
        died = stage.send("die")
        assert "WorkerLostError" in heard.wait_for(died.id, "task-failed")["exception"]
        terminated = stage.send("nap", "x")
        stage.wait_for("started", "x")
        ask_when_it_listens(stage.client, "revoke", task_id=terminated.id, terminate=True)
        assert heard.wait_for(terminated.id, "task-revoked")["terminated"] is True


@pytest.mark.parametrize("pool", ["threads", "solo", "asyncio"])
def test_every_pool_tells_of_its_tasks(tmp_path, pool):
    with (
        Stage(tmp_path, app=APP) as stage,
        monitor(stage.client) as heard,
        stage.worker(options=["-E"], pool=pool) as worker,
    ):
        results = [stage.send("note", key) for key in range(10)]
        for result in results:
            heard.wait_for(result.id, "task-succeeded")
            assert heard.kinds(result.id) == ["task-received", "task-started", "task-succeeded"]
        assert worker.stop() == 0


def test_nothing_is_told_of_tasks_unless_asked_for(stage):
    with monitor(stage.client) as heard, stage.worker(concurrency=1) as worker:
        quiet = stage.send("note", "quiet")
        assert quiet.get(timeout=10) == "quiet"
        assert ask_when_it_listens(stage.client, "enable_events") == {"ok": "task events enabled"}
        assert ask(stage.client, "enable_events") == {"ok": "task events already enabled"}
        loud = stage.send("note", "loud")
        heard.wait_for(loud.id, "task-succeeded")

        assert ask(stage.client, "disable_events") == {"ok": "task events disabled"}
        assert stage.send("note", "quiet again").get(timeout=10) == "quiet again"
        assert ask(stage.client, "enable_events") == {"ok": "task events enabled"}
        secret = stage.send("secret")
        last = stage.send("note", "last")
        heard.wait_for(last.id, "task-succeeded")
        worker.stop()

    assert {event["uuid"] for event in heard.events if event["type"].startswith("task-")} == {loud.id, last.id}
    assert secret.state == "SUCCESS"


def test_events_end_with_the_slot_and_nothing_that_was_settled_is_kept_back(stage):
    with monitor(stage.client) as heard, stage.worker(options=["-E", "--max-tasks-per-child=5"]) as worker:
        results = stage.send_many("note", range(40))
        stage.wait_until_drained()
        worker.stop()
        for result in results:
            heard.wait_for(result.id, "task-succeeded")


def test_a_worker_comes_beats_and_goes(stage):
    with monitor(stage.client) as heard, stage.worker(options=["--heartbeat-interval=1"]) as worker:
        online = heard.wait_for_worker("worker-online")
        assert online["hostname"] == NODE
        assert {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"} <= online.keys()
        assert stage.send("note", "a").get(timeout=10) == "a"
        wait_until(lambda: heard.wait_for_worker("worker-heartbeat")["processed"] == 1)
        worker.stop()
        heard.wait_for_worker("worker-offline")


def test_a_heartbeat_can_be_asked_for(tmp_path):
    with (
        Stage(tmp_path, app=APP) as stage,
        monitor(stage.client) as heard,
        stage.worker(options=["--heartbeat-interval=600"]),
    ):
        heard.wait_for_worker("worker-online")
        ask_when_it_listens(stage.client, "heartbeat")
        heard.wait_for_worker("worker-heartbeat")


def test_without_heartbeat_a_worker_is_silent(tmp_path):
    with (
        Stage(tmp_path, app=APP) as stage,
        monitor(stage.client) as heard,
        stage.worker(options=["--without-heartbeat"]) as worker,
    ):
        ask_when_it_listens(stage.client, "ping")
        assert stage.send("note", "a").get(timeout=10) == "a"
        worker.stop()
    assert heard.events == []


def test_stock_celery_makes_sense_of_our_events(redis_url, tmp_path):
    stock = celery.Celery("stock", broker=redis_url, set_as_current=False)
    with Stage(tmp_path, redis_url, app=APP) as stage, monitor(stock) as heard, stage.worker(options=["-E"]):
        result = stage.send("note", "a")
        heard.wait_for(result.id, "task-succeeded")
        heard.wait_for_worker("worker-heartbeat")

    state = stock.events.State()
    for event in heard.events:
        state.event(event)
    assert state.tasks[result.id].state == "SUCCESS"
    assert state.tasks[result.id].name == f"{APP}.note"
    assert state.workers[NODE].hostname == NODE
    stock.close()


def test_events_and_tasks_outlive_an_outage_of_the_broker(redis_server, tmp_path):
    with Stage(tmp_path, redis_server.url, app=APP) as stage, stage.worker(options=["-E"]):
        ask_when_it_listens(stage.client, "ping")
        redis_server.restart()
        with monitor(stage.client) as heard:
            result = stage.send("note", "after")
            assert result.get(timeout=20) == "after"
            wait_until(lambda: heard.of(result.id), 30.0, "no events after the outage")


def test_a_sent_task_is_announced(stage):
    stage.client.conf.task_send_sent_event = True
    with monitor(stage.client) as heard:
        result = stage.send("note", "a", countdown=60)
        sent = heard.wait_for(result.id, "task-sent")
    assert (sent["name"], sent["queue"], sent["routing_key"]) == (f"{APP}.note", "celery", "celery")
    assert {"args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires", "exchange"} <= sent.keys()
