"""sentry-sdk's integration, which wraps Celery's tracer, reports of our worker what it reports of Celery's."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest
from celery import Celery

from tests.helpers import wait_until
from tests.servers import ServerMissing
from tests.workers import Worker, close_results

APP = "tests.apps.tracked"


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_errors_and_transactions_are_reported_with_their_task(redis_url, tmp_path, pool):
    if importlib.util.find_spec("sentry_sdk") is None:
        raise ServerMissing("no sentry-sdk here; make install brings it")
    reports = tmp_path / "reports"

    def told():
        return [json.loads(line) for line in reports.read_text().splitlines()] if reports.exists() else []

    client = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    with Worker(tmp_path, redis_url, redis_url, app=APP, pool=pool, env={"TEST_REPORTS": str(reports)}) as worker:
        well = client.send_task(f"{APP}.well", ("fine",))
        badly = client.send_task(f"{APP}.badly", ("wrong",))
        assert well.get(timeout=20) == "fine"
        assert str(badly.get(timeout=20, propagate=False)) == "wrong"
        wait_until(lambda: len([each for each in told() if each["type"] != "flush"]) == 3, 20, lambda: str(told()))
        assert worker.stop() == 0
    close_results(client)

    found = {(each["type"], each["task"], each["id"], *each["errors"]) for each in told() if each["type"] != "flush"}
    assert found == {
        ("transaction", f"{APP}.well", well.id),
        ("event", f"{APP}.badly", badly.id, "wrong"),
        ("transaction", f"{APP}.badly", badly.id),
    }
    flushed = {each["pid"] for each in told() if each["type"] == "flush"}
    assert flushed >= {each["pid"] for each in told()} - {os.getpid()}
