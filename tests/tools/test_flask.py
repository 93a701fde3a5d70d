"""A Flask app, as Flask's documentation lays it out, on a Celeriac worker."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.servers import RedisServer, ServerMissing
from tests.workers import ROOT, Worker

APP = "tests.apps.flask_shop.make_celery"
PREAMBLE = f"""
import json, os, time
from celery import chord
from {APP} import flask_app
from tests.apps.flask_shop import tasks
"""


class Shop:
    """The app on a server of its own."""

    def __init__(self, directory: Path, broker: str) -> None:
        self.directory = directory
        self.broker = broker
        self.env = {"TEST_BROKER": broker, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def run(self, program: str):
        """Run a program of stock Celery's in the app; return what it assigns to ``answer``."""
        found = subprocess.run(
            [sys.executable, "-c", f"{PREAMBLE}{program}\nprint(json.dumps(answer))"],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env={**os.environ, **self.env},
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    if importlib.util.find_spec("flask") is None:
        raise ServerMissing("no flask here; make install brings it")
    with RedisServer() as server:
        yield Shop(tmp_path_factory.mktemp("flask"), server.url)


@pytest.fixture(scope="module", params=["processes", "threads"])
def worker(shop, request):
    with Worker(shop.directory, shop.broker, app=APP, pool=request.param, name=request.param) as worker:
        yield worker
        assert worker.stop() == 0


RESULTS = """
sent = {
    "greet": tasks.greet.delay("you"),
    "again": tasks.again.delay(),
    "fail": tasks.fail.delay(),
    "chord": chord([tasks.greet.s(str(n)) for n in range(3)])(tasks.total.s()),
}
answer = {name: repr(result.get(timeout=20, propagate=False)) for name, result in sent.items()}
forgotten = tasks.forgotten.delay()
tasks.greet.delay("after").get(timeout=20)
answer["forgotten"] = forgotten.state
"""


def test_tasks_run_in_the_context_of_the_app(shop, worker):
    assert shop.run(RESULTS) == {
        "greet": "'hello you'", "again": "'flask_shop'", "fail": "ValueError('hello')", "chord": "3", "forgotten": "PENDING",
    }  # fmt: skip


PAGES = """
client = flask_app.test_client()
task_id = client.post("/greet", data={"name": "page"}).get_json()["id"]
while not (answer := client.get(f"/result/{task_id}").get_json())["ready"]:
    time.sleep(0.02)
"""


def test_pages_send_tasks_and_show_their_results(shop, worker):
    assert shop.run(PAGES) == {"ready": True, "value": "hello page"}


def test_a_late_task_whose_process_is_killed_runs_again_in_the_context_of_the_app(shop, tmp_path):
    marker = tmp_path / "marker"
    with Worker(shop.directory, shop.broker, app=APP, name="killed") as worker:
        task_id = shop.run(f"answer = tasks.crash_once.delay({str(marker)!r}).id")
        os.kill(int(wait_until(lambda: marker.exists() and marker.read_text(), 20, worker.log)), signal.SIGKILL)

        found = shop.run(f"answer = tasks.crash_once.AsyncResult({task_id!r}).get(timeout=20)")

    assert found == "flask_shop"
