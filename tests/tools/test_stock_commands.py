"""The commands of a Celery installation without Celeriac talk to a Celeriac worker."""

from __future__ import annotations

import json

from tests.helpers import wait_until
from tests.tools.conftest import APP, NODE, command, outcome_of, running, tool


def answer(stage, *words):
    found = command(stage, *words)
    assert found.returncode == 0, found.stderr + found.stdout
    return found.stdout


def test_celery_status_and_inspect_see_the_worker(stage, worker):
    assert f"{NODE}: OK" in answer(stage, "status")
    inspected = {name: json.loads(answer(stage, "inspect", "-j", name))[NODE] for name in ("stats", "conf")}
    assert inspected["stats"]["pid"] == worker.pid
    assert f"{APP}" in inspected["conf"]["include"]


def test_celery_control_gives_the_worker_orders(stage, worker):
    result = stage.send("hold", "by-control", "never")
    stage.wait_for("started", "by-control")

    assert "time limits set successfully" in answer(stage, "control", "time_limit", f"{APP}.note", "10", "20")
    assert f"{NODE}: OK" in answer(stage, "control", "terminate", "KILL", result.id)

    assert type(outcome_of(result)).__name__ == "TaskRevokedError"


def test_celery_call_and_result_reach_the_worker(stage, worker):
    task_id = answer(stage, "call", f"{APP}.note", "-a", '["by-call"]').strip()

    assert stage.client.AsyncResult(task_id).get(timeout=15) == "by-call"
    assert "by-call" in answer(stage, "result", task_id)


def test_celery_events_dumps_what_happens(stage, worker):
    words = [tool("celery"), "-b", stage.broker_url, "events", "--dump"]
    with running(words, stage.directory / "events.log", PYTHONUNBUFFERED="1") as events:
        wait_until(lambda: f"{NODE} [" in events.output(), 20, events.output)
        good, bad = stage.send("note", "dumped"), stage.send("fail")
        assert good.get(timeout=15) == "dumped"
        outcome_of(bad)

        for text in ("task received", "task started", "task succeeded"):
            line = f"{text}: {APP}.note({good.id})"
            wait_until(lambda line=line: line in events.output(), 10, events.output)
        wait_until(lambda: f"task failed: {APP}.fail({bad.id})" in events.output(), 10, events.output)
    assert "heartbeat" in events.output()
