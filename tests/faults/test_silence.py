"""A network that swallows everything and says nothing: whoever waits, waits for a bounded time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery.exceptions import TimeoutError as ResultTimeout
from kombu.exceptions import OperationalError

from tests.faults.sites import QUICK, site_of
from tests.helpers import wait_until
from tests.workers import ROOT

LONGEST = 45.0
"""Seconds; generous, for machines that are busy.  Most of this takes a few times :data:`QUICK`'s second; a lost connection to results
in Redis is tried to be made again for 20."""

COMMANDS = (("queues",), ("dead", "list"), ("inspect", "ping"), ("beat", "--once"))
POOLS = {"redis": "threads", "postgres": "processes", "rabbitmq": "asyncio"}


@pytest.fixture(params=["redis", "postgres", "rabbitmq"])
def site(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


@pytest.fixture
def redis_site(request, tmp_path):
    request.param = "redis"
    with site_of(request, tmp_path) as site:
        yield site


def command(site, *words):
    """Start a ``celeriac`` command of an app beyond the faulty ways."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": site.far_broker, "TEST_BACKEND": site.far_backend,
        "TEST_CONF": json.dumps(QUICK), "TEST_EFFECTS": str(site.directory / "effects"),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "celeriac.cli.main", "-A", "tests.apps.survival", *words], env=environment,
        cwd=site.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def in_time(call, errors):
    """Call something that is to fail in time; return what it said."""
    started = time.monotonic()
    with pytest.raises(errors) as raised:
        call()
    assert time.monotonic() - started < LONGEST
    return str(raised.value)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_waits_for_ever(site, request):
    pool = POOLS[request.node.callspec.params["site"]]
    conf = {"worker_enable_remote_control": True}
    with site.stage(**QUICK) as near, site.stage(far=True, celeriac_publish_timeout=3, **QUICK) as far:
        with site.far_worker(near, pool=pool, options=["-B"], conf=conf) as worker:
            done = near.send("note_late", "first")
            assert done.get(timeout=20) == "first"
            held = near.send("hold_late", "held", "gate")
            near.wait_for("started", "held")
            waiting = far.client.AsyncResult(held.id)
            assert far.client.control.inspect(timeout=5).ping()
            for way in site.ways:
                way.black_hole()

            commands = [command(site, *words) for words in COMMANDS]
            late = site.far_worker(near, name="late")
            late.launch()

            # producers, readers, control
            assert "Gave up sending" in in_time(lambda: far.send("note_late", "unsent"), OperationalError)
            assert "Gave up" in in_time(lambda: far.send("note_late", "unsent", retry=False), OperationalError)
            if site.backend.startswith("postgres"):  # with Redis it takes half a minute: see below
                in_time(lambda: waiting.get(timeout=1), Exception)
            in_time(lambda: far.client.control.inspect(timeout=1).ping(), Exception)

            # commands
            for words, process in zip(COMMANDS, commands, strict=True):
                text = process.communicate(timeout=60)[1].strip()
                if words == ("beat", "--once") and site.broker.startswith("amqp"):
                    pass  # nothing of it was in the broker
                else:
                    assert process.returncode == 69, (words, text)
                    assert len(text.splitlines()) == 1, (words, text)

            # a worker that starts, and stops again
            wait_until(lambda: "Trying again" in late.log(), 40, late.log)
            wait_until(late.slots, 40, late.log)
            late.signal(signal.SIGTERM)
            late.wait(40)
            late.close()

            # a worker that has something to settle
            near.effects.open_gate("gate")
            near.wait_for("ran", "held")
            worker.signal(signal.SIGTERM)
            assert worker.wait(60) == 1
            assert "Stopping without" in worker.log()
            assert "1 outcomes are not settled" in worker.log()
        site.resume()
        for way in site.ways:
            way.cut()
        with near.worker(name="two"):
            assert held.get(timeout=40) == "held"
            near.wait_until_drained(40)
        assert near.effects.count("ran")["held"] in {1, 2}  # what was said into the silence may arrive when it ends
        assert near.dead() == []


@pytest.mark.slow
def test_who_waits_for_a_result_in_a_silent_redis_waits_for_a_bounded_time(redis_site):
    """With the default settings, whether it was waiting already, begins to, or loses its connection."""
    with redis_site.stage() as near, redis_site.stage(far=True) as far:
        waiting = far.client.AsyncResult("never")
        with pytest.raises(ResultTimeout):
            waiting.get(timeout=0.5)
        redis_site.broker_way.black_hole()
        with ThreadPoolExecutor() as pool:
            others = [pool.submit(in_time, lambda: far.client.AsyncResult("none").get(timeout=1), Exception)]
            others.append(pool.submit(in_time, lambda: waiting.get(timeout=5), Exception))
            redis_site.broker_way.cut()
            assert all(other.result() for other in others)
        redis_site.resume()
        with near.worker():
            near.send("note_late", "at last", task_id="never")
            assert waiting.get(timeout=30) == "at last"
