"""Signals and events: all that Celery sends, with the same arguments and fields."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import celery
import pytest
from kombu import Queue

from tests.helpers import wait_until
from tests.servers import die_with_parent
from tests.test_events import monitor
from tests.workers import ROOT

STOCK, OURS = "celery", "celeriac"

OURS_ONLY = {"task_internal_error"}
NOT_SENT_HERE = {"setup_logging", "user_preload_options"} | {
    f"eventlet_pool_{n}" for n in ("apply", "postshutdown", "preshutdown", "started")
}
"""Signals that neither worker sends in this test: deprecated, beat's own process, or taken by logging."""

KINDS = {
    "task-received", "task-started", "task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked",
    "worker-online", "worker-heartbeat", "worker-offline",
}  # fmt: skip


class Seen:
    """What a worker of one kind sent."""

    def __init__(self, signals, events):
        self.signals = signals
        self.events = events


@contextmanager
def worker(kind, url, directory):
    log = directory / f"{kind}.log"
    module = {STOCK: "celery", OURS: "celeriac"}[kind]
    words = ["-A", "tests.apps.listening", "worker", "-l", "INFO", "-c", "1", "-E", "-B", "-n", "one@test"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", module, *words, "--heartbeat-interval=1"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": url, "TEST_SIGNALS": f"{directory}/{kind}.signals"},
            stdout=out, stderr=subprocess.STDOUT, cwd=directory,
        )  # fmt: skip
    try:
        wait_until(lambda: "one@test ready." in log.read_text(), 30, log.read_text)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait(10)


def run_on(kind, url, directory):
    sender = celery.Celery("sender", broker=url, backend=url, set_as_current=False)
    with monitor(sender) as heard, worker(kind, url, directory):
        results = [sender.send_task(name) for name in ("good", "again", "outer")]
        results += [sender.send_task("late", expires=-10), sender.send_task("bad"), sender.send_task("unknown")]
        sender.send_task("refuse")
        with sender.connection_for_write() as connection:
            queue = Queue("celery")(connection.default_channel)
            connection.Producer().publish({"no": "task"}, routing_key=queue.name)
        for result in results:
            result.get(timeout=20, propagate=False)
        path = directory / f"{kind}.signals"
        for name in ("task_rejected", "task_unknown", "heartbeat_sent", "beat_embedded_init"):
            wait_until(lambda name=name: f'"{name}"' in path.read_text(), 20, f"{kind} sent no {name}")
        wait_until(lambda: {e["type"] for e in heard.events} >= KINDS - {"worker-offline"}, 20,
                   lambda: f"{kind}: {KINDS - {e['type'] for e in heard.events}}")  # fmt: skip
    sender.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return Seen({line["signal"]: line["arguments"] for line in lines}, fields(heard.events))


def fields(events):
    """The names of the fields that each kind of event has had."""
    found = {}
    for event in events:
        if event["type"] in KINDS:
            found.setdefault(event["type"], set()).update(event)
    return found


@pytest.fixture(scope="module")
def seen(shared_redis, tmp_path_factory):
    found = {}
    for number, kind in enumerate((STOCK, OURS), 997):
        url = shared_redis.database_url(number)
        for tries_left in (2, 1, 0):
            with shared_redis.client(number) as client:
                client.flushdb()
            try:
                found[kind] = run_on(kind, url, tmp_path_factory.mktemp(kind))
                break
            except subprocess.TimeoutExpired:  # a stock worker does not always end when it is told to
                if kind == OURS or not tries_left:
                    raise
    return found


def test_signals_are_sent_as_by_celery(seen):
    stock, ours = seen[STOCK].signals, seen[OURS].signals
    differences = {
        name: (stock.get(name), ours.get(name)) for name in {*stock, *ours} - OURS_ONLY if stock.get(name) != ours.get(name)
    }  # fmt: skip
    assert differences == {}
    everything = {
        name for name, value in vars(celery.signals).items() if isinstance(value, celery.utils.dispatch.Signal)
    }
    assert everything - stock.keys() - NOT_SENT_HERE - OURS_ONLY == set()


def test_events_have_the_fields_that_celerys_have(seen):
    stock, ours = seen[STOCK].events, seen[OURS].events
    missing = {kind: names - ours.get(kind, set()) for kind, names in stock.items()}
    assert {kind: names for kind, names in missing.items() if names} == {}
