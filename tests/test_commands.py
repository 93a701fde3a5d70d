"""Celery's commands on an app of ours, and every option of the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import celery
import pytest

from celeriac import Celery
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.servers import die_with_parent
from tests.test_control import ask_when_it_listens
from tests.workers import ROOT, Stage

APP = "tests.apps.surface"


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        yield stage


def environment(stage, **more):
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": stage.broker_url, "TEST_BACKEND": stage.backend_url,
        "TEST_EFFECTS": str(stage.effects.path), **more,
    }  # fmt: skip


def command(stage, *words, given="", **more):
    ran = subprocess.run(
        [sys.executable, "-m", "celeriac", "-A", APP, *words], input=given, env=environment(stage, **more),
        capture_output=True, text=True, timeout=60, check=False, cwd=stage.directory,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout + ran.stderr


@contextmanager
def running(stage, *words, **more):
    """A command that goes on until it is interrupted, and what it prints."""
    path = stage.directory / f"{words[0]}.out"
    with path.open("wb") as out:
        process = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", "celeriac", "-A", APP, *words], env=environment(stage, **more),
            stdout=out, stderr=subprocess.STDOUT, cwd=stage.directory,
        )  # fmt: skip
    try:
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_celerys_commands_work_on_our_app(stage):
    with stage.worker() as worker:
        ask_when_it_listens(stage.client, "ping")
        assert stage.send("note", "x").get(timeout=10) == "x"
        wanted = {
            ("--version",): "celeriac",
            ("list", "bindings"): "errors",
            ("graph", "bootsteps"): "digraph",
            ("logtool", "stats", str(worker.log_path)): "Task completed: 1",
        }
        with ThreadPoolExecutor() as together:
            said = together.map(lambda words: command(stage, *words), wanted)
            assert [text for text, words in zip(wanted.values(), said, strict=True) if text not in words] == []
    assert "done" in command(stage, "shell", "--python", given="print('done', app.main, note)\n")
    old = stage.directory / "old.py"
    old.write_text("CELERY_RESULT_BACKEND = 'redis://'\n")
    assert "result_backend" in command(stage, "upgrade", "settings", str(old), "--no-backup") + old.read_text()


def test_every_option_of_the_worker_is_taken(stage):
    stage.send("note", "purged")
    options = ["-O", "fair", "--prefetch-multiplier=1", "--without-gossip", "--without-mingle", "--purge"]
    options += ["-Q", "celery,errors", "-X", "errors", "-I", "tests.apps.remote"]
    with stage.worker(options=options) as worker:
        queues = {queue["name"] for queue in ask_when_it_listens(stage.client, "active_queues")}
        assert queues == {"celery"}
        assert stage.send("note", "x").get(timeout=10) == "x"
        assert "purge: erased 1 messages" in worker.log()
    assert not stage.effects.of("ran", "purged")


SCHEDULE = {"tick": {"task": f"{APP}.note", "schedule": 0.2, "args": ["tick"]}}


def test_beat_sends_what_is_due(stage):
    conf = json.dumps({"beat_schedule": SCHEDULE})
    options = ["-s", str(stage.directory / "schedule"), "--max-interval=1", "-l", "INFO"]
    options += ["--pidfile", str(stage.directory / "beat.pid")]
    with running(stage, "beat", *options, TEST_CONF=conf):
        wait_until(lambda: stage.broker.depth(["celery"])[0].ready >= 2, 20)
        assert (stage.directory / "beat.pid").exists()
    assert not (stage.directory / "beat.pid").exists()


def test_a_worker_runs_beat_inside(stage):
    options = ["-B", "-s", str(stage.directory / "schedule"), "--scheduler=celery.beat:PersistentScheduler"]
    with stage.worker(options=options, conf={"beat_schedule": SCHEDULE}) as worker:
        stage.wait_for("ran", "tick", times=2)
        assert worker.stop() == 0


def test_events_are_dumped(stage):
    with running(stage, "events", "--dump") as out, stage.worker(options=["-E"]):
        wait_until(lambda: "one@test" in out.read_text(), 20)
        stage.send("note", "x")
        wait_until(lambda: "task succeeded" in out.read_text(), 20, out.read_text)
        assert f"{APP}.note" in out.read_text()


def test_messages_move_to_another_broker(stage, tmp_path, redis_url):
    source = Celery("source", broker=f"sqlite:///{tmp_path}/source.sqlite3", set_as_current=False)
    for key in ("a", "b"):
        source.send_task(f"{APP}.note", (key,), queue="celery")
    moved = command(stage, "migrate", source.conf.broker_url, redis_url, "-t", "1", "-a")
    assert "Migrating task 2/2" in moved
    target = celery.Celery("target", broker=redis_url, set_as_current=False)
    with target.connection_for_read() as connection:
        assert connection.default_channel.client.llen("celery") == 2
    assert connect.open_broker(source).depth(["celery"])[0].ready == 0
    for app in (source, target):
        app.close()
