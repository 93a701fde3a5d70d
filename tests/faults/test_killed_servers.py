"""A server that is killed and started again while concurrent pools work; a result store that is away while a broker is not."""

from __future__ import annotations

import os
import signal

import pytest
from celery import chain

from celeriac.compat import envelope
from celeriac.message import Message
from tests.faults.sites import site_of
from tests.helpers import wait_until
from tests.workers import Stage

TASKS = 200


@pytest.fixture
def server(request):
    return request.getfixturevalue(f"{request.param}_server")


@pytest.mark.parametrize(
    ("server", "pool"),
    [
        ("redis", "asyncio"),
        ("rabbitmq", "threads"),
        pytest.param("redis", "threads", marks=pytest.mark.slow),
        pytest.param("rabbitmq", "asyncio", marks=pytest.mark.slow),
    ],
    indirect=["server"],
)
def test_concurrent_pools_lose_and_double_nothing_when_the_server_is_killed(server, request, tmp_path, pool):
    rabbit = request.node.callspec.params["server"] == "rabbitmq"
    results = f"sqlite:///{tmp_path}/results.sqlite3" if rabbit else None
    keys = [f"k{n}" for n in range(TASKS)]
    with server.vhost() if rabbit else server as given:
        url = given if rabbit else given.url
        with Stage(tmp_path, url, results) as stage, stage.worker(pool=pool, concurrency=4):
            held = [stage.send("hold_late", f"held-{n}", "gate") for n in range(2)]
            for n in range(2):
                stage.wait_for("started", f"held-{n}")
            note = f"{stage.module}.note_late"
            link = chain(
                stage.signature("hold_late", "c1", "gate"), stage.client.signature(note, ("c2",), immutable=True)
            )
            chained = link.apply_async()
            stage.wait_for("started", "c1")
            stage.send_many("note_late", keys)
            wait_until(lambda: len(stage.effects.of("ran")) > TASKS // 10, 30)
            server.kill()
            server.start()
            stage.effects.open_gate("gate")
            assert [each.get(timeout=60) for each in held] == ["held-0", "held-1"]
            assert chained.get(timeout=60) == "c2"
            wait_until(lambda: set(stage.effects.count("ran")) >= {*keys, "c1", "c2", "held-0", "held-1"}, 60)
            stage.wait_until_drained(60)
            assert set(stage.effects.count("started").values()) == {1}
            assert set(stage.effects.count("ran").values()) == {1}
            assert stage.dead() == []


@pytest.fixture(params=["redis+postgres", "postgres+redis"])
def apart(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


@pytest.mark.parametrize(
    "conf", [{}, {"result_backend_always_retry": True}], ids=["asked once", "asked again and again"]
)
def test_a_redelivery_waits_for_the_results_that_tell_whether_it_has_run(apart, conf):
    with apart.stage(**conf) as stage, apart.far_worker(stage) as worker:
        held = stage.send("hold_late", "killed", "gate")
        victim = stage.wait_for("started", "killed")[0].pid
        sent = stage.send("note_late", "again")
        assert sent.get(timeout=20) == "again"
        apart.backend_way.refuse()

        os.kill(victim, signal.SIGKILL)  # it is not known whether it had a result
        stage.broker.publish([Message("celery", redelivered(stage, "fresh", "id-fresh"))])
        stage.broker.publish([Message("celery", redelivered(stage, "again", sent.id))])
        wait_until(lambda: "goes back" in worker.log(), 30, worker.log)
        apart.backend_way.resume()

        stage.wait_for("started", "killed", times=2, timeout=30)
        stage.effects.open_gate("gate")
        assert held.get(timeout=30) == "killed"
        assert stage.client.AsyncResult("id-fresh").get(timeout=30) == "fresh"
        stage.wait_until_drained(30)
        assert stage.effects.count("ran") == {"killed": 1, "again": 1, "fresh": 1}
        assert stage.dead() == []
        assert "Failed operation" not in worker.log()  # Celery's own retries, each with a traceback


def redelivered(stage, key, task_id):
    """A message of a task that was delivered before, as a rescuer puts it back."""
    message = stage.client.amqp.create_task_message(task_id, f"{stage.module}.note_late", (key,), {})
    raw = envelope.encode(
        message.body, serializer="json", compression=None, headers=message.headers,
        properties={**message.properties, "priority": 0, "delivery_mode": 2}, exchange="", routing_key="celery",
    )  # fmt: skip
    return envelope.amend(raw)
