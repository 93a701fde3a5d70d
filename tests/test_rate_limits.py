"""Celery's rate limits: how often one worker starts a task."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import pytest

from celeriac.compat.rate_limits import HORIZON, Buckets, interval_of
from tests.helpers import wait_until
from tests.test_control import ask, ask_when_it_listens
from tests.workers import Stage

APP = "tests.apps.surface"


@pytest.fixture(params=["sqlite", "redis"])
def stage(request, tmp_path):
    broker = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with Stage(tmp_path, broker, app=APP) as stage:
        yield stage


def starts(stage, prefix):
    """When tasks were started, in order."""
    return sorted(effect.at for effect in stage.effects.of("ran") if effect.key.startswith(prefix))


def gaps(moments):
    return [later - earlier for earlier, later in pairwise(moments)]


def test_a_limit_spaces_the_starts_of_all_slots_and_holds_nobody_else_up(stage):
    with stage.worker(concurrency=2) as worker:
        limited = stage.send_many("seldom", [f"seldom-{n}" for n in range(4)])
        started = time.monotonic()
        others = stage.send_many("note", [f"other-{n}" for n in range(50)])
        assert [other.get(timeout=5) for other in others]
        assert time.monotonic() - started < 1.4
        assert stage.broker.leased_count() == 0 or len(worker.slots()) == 2
        assert [result.get(timeout=10) for result in limited]
    moments = starts(stage, "seldom")
    assert len(moments) == 4
    assert min(gaps(moments)) > 0.35
    assert moments[-1] - moments[0] < 3


def test_a_fast_limit_is_reached(tmp_path):
    with Stage(tmp_path, app=APP) as stage, stage.worker(concurrency=2):
        results = stage.send_many("often", [f"often-{n}" for n in range(60)])
        assert [result.get(timeout=10) for result in results]
        moments = starts(stage, "often")
    assert 0.9 < moments[-1] - moments[0] < 2.5


def test_a_limit_is_changed_and_survives_a_lost_slot_and_a_restart(tmp_path, redis_url):
    options = [f"--statedb={tmp_path}/state"]
    with Stage(tmp_path, redis_url, app=APP) as stage:
        with stage.worker(concurrency=1, options=options) as worker:
            answer = ask_when_it_listens(stage.client, "rate_limit", task_name=f"{APP}.note", rate_limit="1/h")
            assert answer == {"ok": "new rate limit set successfully"}
            assert f"{APP}.note [rate_limit=1/h]" in ask(stage.client, "registered")
            assert stage.send("note", "first").get(timeout=5) == "first"
            (slot,) = worker.slots()
            os.kill(slot, signal.SIGKILL)
            wait_until(lambda: worker.slots() not in ([], [slot]), message="no new slot")
            stage.send("note", "second")
            wait_until(lambda: stage.broker.depth(["celery"])[0].scheduled == 1)
            worker.stop()
        with stage.worker(concurrency=1, options=options):
            assert f"{APP}.note [rate_limit=1/h]" in str(ask_when_it_listens(stage.client, "registered"))
            answer = ask(stage.client, "rate_limit", task_name=f"{APP}.note", rate_limit=0)
            assert answer == {"ok": "rate limit disabled successfully"}
            assert stage.send("note", "third").get(timeout=5) == "third"
        assert [effect.key for effect in stage.effects.of("ran")] == ["first", "third"]


def test_limits_can_be_turned_off_and_have_a_default(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        with stage.worker(conf={"worker_disable_rate_limits": True}):
            results = stage.send_many("seldom", [f"off-{n}" for n in range(10)])
            assert [result.get(timeout=3) for result in results]
        with stage.worker(conf={"task_default_rate_limit": "1/h"}):
            results = stage.send_many("note", ["default-1", "default-2"])
            wait_until(lambda: stage.broker.depth(["celery"])[0].scheduled == 1)
            wait_until(lambda: sum(result.ready() for result in results) == 1)


def test_a_limit_that_cannot_be_read_is_refused_at_start_up(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        worker = stage.worker(conf={"task_annotations": {f"{APP}.note": {"rate_limit": "ten"}}})
        worker.launch()
        try:
            assert worker.wait() == 1
        finally:
            worker.close()
        assert f"{APP}.note: 'ten' is not a rate limit; write for example 10/s" in worker.log()


def test_moments_are_booked_up_to_the_horizon():
    buckets = Buckets(["a", "b"])
    interval = HORIZON / 2.5
    answers = [buckets.admit("a", interval) for _ in range(5)]

    assert [booked for _, booked in answers] == [True, True, True, False, False]
    assert answers[0][0] == 0.0
    assert answers[1][0] == pytest.approx(interval, abs=0.1)
    assert answers[4][0] == HORIZON
    assert buckets.admit("b", interval) == (0.0, True)
    buckets.reset("a")
    assert buckets.admit("a", interval) == (0.0, True)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("10/s", 0.1), ("30/m", 2.0), ("2/h", 1800.0), (4, 0.25), ("0.5", 2.0), (None, 0.0), (0, 0.0)],
)
def test_limits_are_read_as_celery_reads_them(limit, seconds):
    assert interval_of(limit) == pytest.approx(seconds)


@pytest.mark.parametrize("limit", ["ten", "10/y", [1]])
def test_what_is_no_limit_is_an_error(limit):
    with pytest.raises(ValueError, match="is not a rate limit"):
        interval_of(limit)
