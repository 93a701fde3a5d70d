"""Flower and celery-exporter watch a worker, and Flower gives it orders."""

from __future__ import annotations

import json

import pytest

from tests.helpers import free_port, wait_until
from tests.tools.conftest import APP, NODE, outcome_of, running, tool

EXPORTER = "from src.cli import cli; cli()"
"""The package has no program of its own; its module is really called ``src``."""


@pytest.fixture(scope="module")
def flower(stage, worker):
    port = free_port()
    command = [tool("celery"), f"--broker={stage.broker_url}", f"--result-backend={stage.backend_url}", "flower"]
    log = stage.directory / "flower.log"
    with running([*command, f"--port={port}"], log, port, FLOWER_UNAUTHENTICATED_API="1") as flower:
        wait_until(lambda: NODE in flower.get("/api/workers?refresh=1"), 30, flower.output, interval=0.2)
        yield flower


@pytest.fixture(scope="module")
def exporter(stage, worker):
    port = free_port()
    command = [tool("python"), "-c", EXPORTER, "--broker-url", stage.broker_url, "--host=127.0.0.1", f"--port={port}"]
    with running(command, stage.directory / "exporter.log", port) as exporter:
        wait_until(lambda: 'celery_worker_up{hostname="test"} 1.0' in exporter.get("/metrics"), 30, exporter.output)
        yield exporter


def task_in(flower, result):
    """What Flower knows about a task."""
    text = flower.get(f"/api/task/info/{result.id}")
    return json.loads(text) if text.startswith("{") else {}


def test_flower_shows_a_worker_with_its_slots_and_queues(flower, worker):
    shown = json.loads(flower.get("/api/workers"))[NODE]

    assert shown["stats"]["pid"] == worker.pid
    assert sorted(shown["stats"]["pool"]["processes"]) == sorted(worker.slots())
    assert [queue["name"] for queue in shown["active_queues"]] == ["celery"]
    assert f"{APP}.note" in shown["registered"]
    (row,) = wait_until(lambda: json.loads(flower.get("/workers?json=1"))["data"], 15, flower.output)
    assert (row["hostname"], row["status"]) == (NODE, True)


def test_flower_follows_tasks_to_their_end(flower, stage):
    sent = {state: stage.send(*call) for state, call in {"SUCCESS": ("note", "a"), "FAILURE": ("fail",)}.items()}

    for state, result in sent.items():
        wait_until(lambda r=result, s=state: task_in(flower, r).get("state") == s, 15, flower.output)
    shown = task_in(flower, sent["SUCCESS"])
    assert (shown["name"], shown["args"], shown["result"]) == (f"{APP}.note", "('a',)", "'a'")
    assert shown["worker"] == NODE
    assert shown["received"] <= shown["started"] <= shown["succeeded"]
    assert shown["sent"] <= shown["succeeded"] + 5  # said after sending, by another process
    assert "ValueError: as asked" in task_in(flower, sent["FAILURE"])["traceback"]
    assert sent["SUCCESS"].id in json.loads(flower.get(f"/api/tasks?taskname={APP}.note"))


def test_flower_revokes_a_running_task(flower, stage):
    result = stage.send("hold", "revoked", "never")
    stage.wait_for("started", "revoked")

    assert "Revoked" in flower.get(f"/api/task/revoke/{result.id}?terminate=true", method="POST")

    assert type(outcome_of(result)).__name__ == "TaskRevokedError"
    wait_until(lambda: task_in(flower, result).get("state") == "REVOKED", 15, flower.output)
    assert stage.send("note", "after").get(timeout=15) == "after"


def test_flower_grows_and_shrinks_the_pool(flower, stage, worker):
    assert "Growing" in flower.get(f"/api/worker/pool/grow/{NODE}?n=1", method="POST")
    wait_until(lambda: len(worker.slots()) == 3, 15)
    assert "Shrinking" in flower.get(f"/api/worker/pool/shrink/{NODE}?n=1", method="POST")
    wait_until(lambda: len(worker.slots()) == 2, 15)


def test_flower_sends_a_task(flower, stage):
    sent = json.loads(flower.get(f"/api/task/send-task/{APP}.note", "POST", b'{"args": ["by flower"]}'))

    assert stage.client.AsyncResult(sent["task-id"]).get(timeout=15) == "by flower"


def test_celery_exporter_counts_workers_and_tasks(exporter, stage):
    for call in (("note", "m1"), ("note", "m2"), ("fail",), ("retry_once", "m3")):
        outcome_of(stage.send(*call))

    # It asks the worker, for some seconds, before it answers; so it is asked once, and for all that came before.
    text = exporter.get("/metrics")
    counts = samples(text)
    for event in ("sent", "received", "started", "succeeded"):
        assert counts[f"celery_task_{event}_total", "note"] >= 2, event
    assert counts["celery_task_runtime_count", "note"] >= 2
    assert counts["celery_task_failed_total", "fail"] >= 1
    assert counts["celery_task_retried_total", "retry_once"] >= 1
    assert counts["celery_task_succeeded_total", "retry_once"] >= 1
    assert 'celery_worker_tasks_active{hostname="test"} 0.0' in text
    assert 'celery_queue_length{queue_name="celery"} 0.0' in text
    assert 'celery_active_process_count{queue_name="celery"} 2.0' in text


def samples(text):
    """Counts by metric and task, summed over the rest."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if f'name="{APP}.' in rest:
            key = name, rest.partition(f'name="{APP}.')[2].partition('"')[0]
            found[key] = found.get(key, 0) + float(rest.rpartition(" ")[2])
    return found
