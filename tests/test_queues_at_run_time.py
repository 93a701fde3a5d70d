"""Queues: a worker takes up others and gives them up while it runs, and hears every kind of exchange."""

from __future__ import annotations

import celery
import pytest
from kombu import Exchange, Queue
from kombu.common import Broadcast

from tests.helpers import wait_until
from tests.test_control import ask, ask_when_it_listens
from tests.workers import Stage

APP = "tests.apps.surface"


@pytest.fixture(params=["sqlite", "redis"])
def stage(request, tmp_path):
    broker = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with Stage(tmp_path, broker, app=APP) as stage:
        yield stage


def consumed(client):
    return {queue["name"] for queue in ask(client, "active_queues")}


def test_queues_are_added_and_cancelled_in_slots_that_there_are_and_that_come_later(stage):
    with stage.worker(concurrency=1, options=["-Q", "celery"], conf={"worker_pool_restarts": True}) as worker:
        waiting = stage.send("note", "extra", queue="extra")
        assert ask_when_it_listens(stage.client, "add_consumer", queue="extra") == {"ok": "add consumer extra"}
        assert waiting.get(timeout=10) == "extra"
        assert consumed(stage.client) == {"celery", "extra"}
        later = stage.send("note", "later", queue="extra", countdown=0.3)
        assert later.get(timeout=10) == "later"

        before = worker.slots()
        ask(stage.client, "pool_restart")
        wait_until(lambda: len(worker.slots()) == 1 and worker.slots() != before)
        assert stage.send("note", "again", queue="extra").get(timeout=10) == "again"

        assert ask(stage.client, "cancel_consumer", queue="extra") == {"ok": "no longer consuming from extra"}
        assert consumed(stage.client) == {"celery"}
        stage.send("note", "never", queue="extra")
        assert stage.send("note", "still").get(timeout=10) == "still"
        assert stage.broker.depth(["extra"])[0].ready == 1
        ask(stage.client, "cancel_consumer", queue="celery")
        stage.send("note", "none")
        assert consumed(stage.client) == set()
        ask(stage.client, "add_consumer", queue="celery")
        stage.wait_for("ran", "none")
    assert not stage.effects.of("ran", "never")


def test_every_kind_of_exchange_reaches_the_worker(stage):
    """As sent by stock Celery where it can (Redis), by our client where not."""
    sender = stage.client
    if stage.broker_url.startswith("redis"):
        sender = celery.Celery("stock", broker=stage.broker_url, backend=stage.backend_url, set_as_current=False)
    with stage.worker(name="one") as worker, stage.worker(name="two"):
        logs = Queue("errors", Exchange("logs", type="topic"), routing_key="*.error")
        for key in ("web.error", "web.info"):
            sender.send_task(f"{APP}.note", (key,), queue=logs, routing_key=key)
        assert stage.wait_for("ran", "web.error")
        sender.send_task(f"{APP}.note", ("all",), queue=Broadcast("news"))
        assert len({effect.pid for effect in stage.wait_for("ran", "all", times=2)}) == 2

        assert sender.send_task(f"{APP}.note", ("direct",)).get(timeout=10) == "direct"
        assert worker.stop() == 0
    assert stage.effects.count("ran") == {"web.error": 1, "all": 2, "direct": 1}
    if sender is not stage.client:
        sender.close()


def test_broadcasts_are_heard_again_when_the_broker_was_away(tmp_path, redis_server):
    with Stage(tmp_path, redis_server.url, app=APP) as stage, stage.worker() as worker:
        redis_server.restart()
        wait_until(lambda: "Broadcasts are not heard" in worker.log(), 20)

        def heard():
            try:
                stage.send("note", "news", queue=Broadcast("news"))
            except celery.exceptions.OperationalError:
                return False
            return stage.effects.of("ran", "news")

        wait_until(heard, 20, interval=0.2)
