"""What apps add to a worker: steps, options, code that is loaded anew; and commands about what runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kombu import Queue

from tests.helpers import wait_until
from tests.test_control import ask, ask_when_it_listens
from tests.workers import ROOT, Stage

APP = "tests.apps.surface"


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        yield stage


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_bootsteps_of_the_worker_and_of_its_consumer_run(request, tmp_path, kind):
    broker = request.getfixturevalue("redis_url") if kind == "redis" else None
    options = ["--colour=red", "--shade=dark"]
    with Stage(tmp_path, broker, app=APP) as stage, stage.worker(options=options, env={"TEST_STEPS": "1"}) as worker:
        stage.wait_for("made", "worker-red")
        stage.wait_for("tick", "one@test", times=2)
        with stage.client.connection_for_write() as connection:
            producer = connection.Producer(serializer="json")
            queue = Queue("mail")(producer.channel)
            queue.declare()
            producer.publish({"key": "letter"}, routing_key="mail")
        stage.wait_for("mail", "letter")
        assert stage.send("note", "x").get(timeout=10) == "x"
        assert worker.stop() == 0
        steps = [(effect.event, effect.key) for effect in stage.effects.all() if effect.event.startswith("step-")]
    assert steps == [("step-start", "worker"), ("step-start", "after"), ("step-stop", "after"), ("step-stop", "worker")]


def test_steps_of_the_consumer_are_started_again_when_the_broker_was_away(tmp_path, redis_server):
    with Stage(tmp_path, redis_server.url, app=APP) as stage, stage.worker(env={"TEST_STEPS": "1"}) as worker:
        redis_server.restart()
        wait_until(lambda: "steps are started again" in worker.log(), 20)

        def arrives():
            try:
                with stage.client.connection_for_write() as connection:
                    connection.Producer(serializer="json").publish({"key": "letter"}, routing_key="mail")
            except connection.connection_errors:
                return False
            return stage.effects.of("mail", "letter")

        wait_until(arrives, 20, interval=0.2)


def test_a_restarted_pool_has_other_code(stage, tmp_path):
    """As in Celery, a task that is defined again is not taken: what it uses is."""
    helper = tmp_path / "helper.py"
    helper.write_text("VALUE = 'old'")
    (tmp_path / "using.py").write_text(
        "import helper\nfrom celery import shared_task\n@shared_task(name='using')\ndef f():\n    return helper.VALUE\n"
    )
    conf = {"worker_pool_restarts": True, "include": ["using"]}
    with stage.worker(concurrency=1, conf=conf, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as worker:
        assert stage.client.send_task("using").get(timeout=10) == "old"
        helper.write_text("VALUE = 'newer'")
        before = worker.slots()
        answer = ask_when_it_listens(stage.client, "pool_restart", modules=["helper"], reload=True)
        assert answer == {"ok": "reload started"}
        wait_until(lambda: len(worker.slots()) == 1 and worker.slots() != before)
        assert stage.client.send_task("using").get(timeout=10) == "newer"


def test_running_tasks_are_ended_by_their_stamps(stage):
    with stage.worker(concurrency=2):
        marked, other = stage.signature("hold", "marked", "never"), stage.signature("hold", "other", "gate")
        marked.stamp(batch="b1")
        other.stamp(batch="b2")
        victim, result = marked.apply_async(), other.apply_async()
        stage.wait_for("started", "marked")
        stage.wait_for("started", "other")
        answer = ask_when_it_listens(stage.client, "revoke_by_stamped_headers", headers={"batch": "b1"}, terminate=True)
        assert answer == {"ok": "headers {'batch': {'b1'}} revoked"}
        wait_until(lambda: victim.state == "REVOKED")
        stage.effects.open_gate("gate")
        assert result.get(timeout=10) == "other"
        answer = ask(stage.client, "revoke_by_stamped_headers", headers={"batch": "b9"}, terminate=True)
        assert answer == {"ok": "headers {'batch': 'b9'} were not terminated"}


def test_the_supervisors_memory_can_be_asked_for(stage):
    with stage.worker():
        ask_when_it_listens(stage.client, "memsample")
        assert isinstance(ask(stage.client, "memdump"), str)
        answer = ask(stage.client, "objgraph")
    assert "error" in answer
    assert "objgraph" in answer["error"]


def test_celerys_own_helpers_for_tests_run_our_apps(tmp_path):
    """``celery.contrib.pytest`` starts Celery's worker in a thread; an app of ours sends to it."""
    (tmp_path / "test_app.py").write_text(
        """
import pytest

pytest_plugins = ("celery.contrib.pytest",)


@pytest.fixture(scope="session")
def celery_parameters():
    return {}


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "memory://", "result_backend": "cache+memory://"}


def test_fixtures(celery_app, celery_worker):
    from celeriac import Celery
    from celeriac.compat.app import upgrade

    app = upgrade(celery_app)

    @app.task
    def add(x, y):
        return x + y

    celery_worker.reload()
    assert isinstance(app, Celery)
    assert add.delay(2, 3).get(timeout=10) == 5
    assert (add.s(1, 1) | add.s(5)).delay().get(timeout=10) == 7


def test_start_worker():
    from celery.contrib.testing.worker import start_worker

    from celeriac import Celery

    app = Celery(broker="memory://", backend="cache+memory://")

    @app.task
    def double(x):
        return 2 * x

    with start_worker(app, perform_ping_check=False):
        assert double.delay(4).get(timeout=10) == 8
"""
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "2 passed" in ran.stdout
