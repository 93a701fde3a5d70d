"""Limits for the whole cluster, on real workers."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

import pytest

from celeriac import Celery, Limit
from celeriac.errors import ConfigurationError
from tests.helpers import wait_until
from tests.test_limit_arithmetic import most_in_a_window
from tests.workers import Stage, measured

APP = "tests.apps.limited"


@pytest.fixture(params=["sqlite", "redis"])
def stage(request, tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3" if request.param == "sqlite" else request.getfixturevalue("redis_url")
    with Stage(tmp_path, url, app=APP) as stage:
        yield stage


def parked(stage, queue="celery"):
    return stage.broker.depth([queue])[0].parked


def send(stage, task, keys, *args, **options):
    with stage.client.batch():
        for key in keys:
            stage.send(task, str(key), *args, **options)


def ran(stage):
    return stage.effects.of("ran")


def test_unrelated_tasks_behind_forty_limited_ones_run_at_once(stage):
    with stage.worker(concurrency=1):
        send(stage, "rare", [f"rare{n}" for n in range(40)])
        send(stage, "free", range(20))
        wait_until(lambda: len(ran(stage)) >= 21, 10)
        wait_until(lambda: parked(stage) == 39, 5)
    assert len([each for each in ran(stage) if each.key.startswith("rare")]) == 1
    assert stage.broker.leased_count() == 0


@pytest.mark.timeout(120)
def test_a_hundred_a_second_over_four_workers(stage):
    with ExitStack() as stack:
        send(stage, "hundred", range(700))
        for n in range(4):
            worker = stage.worker(name=f"w{n}", concurrency=1)
            stack.callback(worker.close)
            worker.launch()
        wait_until(lambda: len(ran(stage)) == 700, 60, lambda: f"{len(ran(stage))} ran", interval=0.05)
        workers = {each.pid for each in ran(stage)}
    times = sorted(each.at for each in ran(stage))
    late = times[-1] - times[100]
    measured(f"{599 / late:.1f}/s, at most {most_in_a_window(times, 1.0)} in a second, by {len(workers)} workers")
    assert most_in_a_window(times, 1.0) <= 100
    assert 599 / late >= 95
    assert set(stage.effects.count("ran").values()) == {1}
