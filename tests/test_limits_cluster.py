"""Limits for the whole cluster, on real workers."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from celeriac import Celery, Limit
from celeriac.compat import connect
from celeriac.compat.limiting import Limiting
from celeriac.errors import ConfigurationError
from celeriac.policies.gate import Gate
from celeriac.policies.limit_book import LimitBook
from tests.helpers import wait_until
from tests.test_limit_arithmetic import most_in_a_window
from tests.workers import ROOT, Stage, measured

APP = "tests.apps.limited"


on = functools.partial(pytest.mark.parametrize, "stage", indirect=True)
"""On which stores a test runs; where nothing is said, on SQLite."""

everywhere = on(["sqlite", "redis", "postgres"])


@pytest.fixture
def stage(request, tmp_path):
    store = getattr(request, "param", "sqlite")
    url = f"sqlite:///{tmp_path}/store.sqlite3" if store == "sqlite" else request.getfixturevalue(f"{store}_url")
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


@everywhere
def test_unrelated_tasks_behind_forty_limited_ones_run_at_once(stage):
    with stage.worker(concurrency=1):
        send(stage, "rare", [f"rare{n}" for n in range(40)])
        send(stage, "free", range(20))
        wait_until(lambda: len(ran(stage)) >= 21, 10)
        wait_until(lambda: parked(stage) == 39, 5)
        wait_until(lambda: stage.broker.leased_count() == 0, 5)  # the limited ones lie in the lanes, and in no slot
    assert len([each for each in ran(stage) if each.key.startswith("rare")]) == 1


@everywhere
@pytest.mark.timeout(120)
def test_a_hundred_a_second_over_four_workers(stage):
    with ExitStack() as stack:
        for n in range(4):
            stack.enter_context(stage.worker(name=f"w{n}", concurrency=1))
        best = 0.0
        for round in range(3):
            total = 500 * (round + 1)
            send(stage, "hundred", range(total - 500, total))
            wait_until(lambda: len(ran(stage)) == total, 60, lambda: f"{len(ran(stage))} ran", interval=0.05)  # noqa: B023
            times = sorted(each.at for each in ran(stage))
            last = times[-350:]
            best = max(best, len(last) / (last[-1] - last[0]))
            if best >= 95:
                break
        workers = {each.pid for each in ran(stage)}
    measured(f"{best:.1f}/s, at most {most_in_a_window(times, 1.0)} in a second, by {len(workers)} workers")
    assert most_in_a_window(times, 1.0) <= 100
    assert best >= 95
    assert set(stage.effects.count("ran").values()) == {1}


@everywhere
@pytest.mark.timeout(90)
def test_no_more_than_allowed_run_at_once_for_each_key_whoever_is_killed(stage):
    """Slots are killed while they hold permits: their permits come back, and what they ran is run again."""
    keys = [f"k{n}" for n in range(8)]
    with ExitStack() as stack:
        workers = [stack.enter_context(stage.worker(name=f"w{n}", concurrency=3)) for n in range(2)]
        for tenant in ("a", "b"):
            send(stage, "two", keys, tenant, "gate")
        wait_until(lambda: len(stage.effects.of("started")) == 4, 15)
        victims = {each.pid for each in stage.effects.of("started")}
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(stage.effects.of("started")) == 8, 15, lambda: f"{stage.effects.all()}")
        time.sleep(0.5)  # whoever wrongly has a permit would start now
        started = stage.effects.of("started")
        assert len(started) == 8
        assert all(sum(each.key.startswith(tenant) for each in started[4:]) == 2 for tenant in "ab")
        stage.effects.open_gate("gate")
        wait_until(lambda: len(ran(stage)) == 16, 30, lambda: f"{len(ran(stage))} ran, {parked(stage)} parked")
        assert all(worker.process.poll() is None for worker in workers)
    assert set(stage.effects.count("ran").values()) == {1}
    assert most_at_once(stage, victims) <= 2


def most_at_once(stage, victims):
    """The largest number of runs of one tenant at one time; those whose process was killed have no end of their own."""
    events = []
    for each in stage.effects.all():
        tenant = each.key.partition("/")[0]
        if each.pid not in victims:
            events.append((each.at, 1 if each.event == "started" else -1, tenant))
    most = 0
    for tenant in ("a", "b"):
        running = 0
        for _, step, _ in sorted(event for event in events if event[2] == tenant):
            running += step
            most = max(most, running)
    return most


@on(["redis"])
def test_a_node_that_dies_gives_its_permits_back_with_its_leases(stage):
    quick = {"celeriac_lease_seconds": 2}
    with stage.worker(name="dies", concurrency=2, conf=quick) as dies:
        send(stage, "two", ["k0", "k1"], "a", "never")
        wait_until(lambda: len(stage.effects.of("started")) == 2, 15)
        dies.signal_group(signal.SIGKILL)
        with stage.worker(name="lives", concurrency=2, conf=quick):
            send(stage, "two", ["k2"], "a")
            stage.wait_for("ran", "a/k2", timeout=20)


@on(["sqlite", "postgres"])
def test_tenants_of_one_limit_take_turns(stage):
    send(stage, "fair", [f"big{n}" for n in range(300)], "big")
    with stage.worker(concurrency=2):
        wait_until(lambda: len(ran(stage)) >= 10, 15)
        send(stage, "fair", [f"small{n}" for n in range(10)], "small")
        wait_until(lambda: sum(each.key.startswith("small") for each in ran(stage)) == 10, 20)
    order = [each.key for each in ran(stage)]
    first = next(n for n, key in enumerate(order) if key.startswith("small"))
    last = max(n for n, key in enumerate(order) if key.startswith("small"))
    measured(f"the ten of the small tenant were among {last - first + 1} that started")
    assert last - first < 60


def test_messages_of_one_lane_start_about_in_the_order_in_which_they_were_sent(stage):
    send(stage, "mail", range(60))
    with stage.worker(concurrency=1):
        wait_until(lambda: len(ran(stage)) == 60, 20)
    order = [int(each.key) for each in ran(stage)]
    assert max(abs(place - key) for place, key in enumerate(order)) <= 25


@on(["redis"])
def test_a_call_costs_its_weight(stage):
    with stage.worker(concurrency=1):
        for n in range(6):
            stage.send("printing", str(n), 5)
        wait_until(lambda: len(ran(stage)) == 6, 15)
    times = [each.at for each in ran(stage)]
    assert most_in_a_window(times, 1.0) <= 2
    assert times[-1] - times[0] > 1.9


def test_a_queue_may_be_limited_whatever_its_tasks(stage):
    with stage.worker(concurrency=2, options=["-Q", "slow,celery"]):
        for n in range(4):
            stage.send("plain", f"slow{n}", queue="slow")
        stage.send("plain", "other")
        wait_until(lambda: len(ran(stage)) == 5, 15)
    running = 0
    for each in sorted(stage.effects.all(), key=lambda each: each.at):
        if each.key.startswith("slow"):
            running += 1 if each.event == "started" else -1
            assert running <= 1


@on(["redis"])
def test_what_has_expired_meanwhile_costs_nothing_of_the_limit(stage):
    with stage.worker(concurrency=1):
        send(stage, "mail", [f"late{n}" for n in range(200)], expires=0.5)
        wait_until(lambda: parked(stage) > 100, 5)
        wait_until(lambda: parked(stage) == 0, 10)
    assert len(ran(stage)) <= 60


def test_countdown_and_limit_go_together_and_a_worker_that_stops_leaves_lanes_behind(stage):
    with stage.worker(concurrency=1) as worker:
        stage.send("rare", "first")
        stage.wait_for("ran", "first")
        stage.send("rare", "later", countdown=0.3)
        wait_until(lambda: parked(stage) == 1, 5)
        assert worker.stop() == 0
    assert parked(stage) == 1
    assert stage.broker.purge("celery") == 1


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
def test_limits_hold_in_every_pool(pool, tmp_path):
    with Stage(tmp_path, app=APP) as stage, stage.worker(pool=pool, concurrency=6):
        send(stage, "two", [f"k{n}" for n in range(6)], "a", None, 0.1)
        send(stage, "mail", range(30))
        wait_until(lambda: len(ran(stage)) == 36, 20, lambda: f"{len(ran(stage))} ran")
        assert most_at_once(stage, ()) <= 2
        assert most_in_a_window([each.at for each in ran(stage) if "/" not in each.key], 1.0) <= 40


def run_command(stage, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": stage.broker_url}
    command = [sys.executable, "-m", "celeriac.cli.main", "-A", APP, *words]
    return subprocess.run(command, env=environment, cwd=stage.directory, capture_output=True, text=True, check=False)


@on(["postgres"])
def test_a_limit_is_changed_while_workers_run(stage):
    stage.conf["worker_enable_remote_control"] = True
    with stage.worker(concurrency=1):
        send(stage, "rare", range(30))
        wait_until(lambda: parked(stage) == 29, 10)
        (listed,) = [
            each for each in json.loads(run_command(stage, "limits", "--json").stdout) if each["name"] == f"{APP}.rare"
        ]
        assert (listed["rate"], listed["parked"], listed["changed"]) == ("1/m", 29, False)

        (answer,) = stage.client.control.rate_limit(f"{APP}.rare", "0.5/x", reply=True, timeout=30, limit=1)
        assert "error" in answer["one@test"]
        (answer,) = stage.client.control.rate_limit(f"{APP}.rare", "600/m", reply=True, timeout=30, limit=1)
        assert answer == {"one@test": {"ok": "new rate limit set successfully, for all workers together: 600/m"}}

        wait_until(lambda: len(ran(stage)) >= 3, 10)
        run_command(stage, "limits", "set", f"{APP}.rare", "--rate", "1000/s", "--burst", "1000")

        wait_until(lambda: len(ran(stage)) == 30, 10)
        assert "1/m" in run_command(stage, "limits", "clear", f"{APP}.rare").stdout
        text = run_command(stage, "limits", "set", f"{APP}.rarer", "--rate", "1/s").stderr
        assert f"There is no limit '{APP}.rarer'. Did you mean '{APP}.rare'?" in text


@on(["redis"])
def test_ten_thousand_parked_messages_cause_no_storm(stage):
    """While nothing is allowed a slot looks once a second, in a few round trips, however much is parked."""
    with stage.client.batch():
        for n in range(10_000):
            stage.send("rare", str(n))
    with stage.worker(concurrency=1):
        wait_until(lambda: parked(stage) >= 9_999, 60, interval=0.1)
    book = LimitBook({f"{APP}.rare": Limit("1/m").allowed()})
    store = connect.open_key_values(stage.client)
    stage.broker.register("looker", ["celery"], 60)
    gate = Gate("looker", stage.broker, store, book, sequential=True)
    gate.lease(["celery"], 1)  # connects
    for _ in range(3):
        before = stage.broker.round_trips + store.round_trips
        assert gate.lease(["celery"], 10) == []
        assert stage.broker.round_trips + store.round_trips - before == 2
        assert 0.3 < gate.rest() <= 1.0
    store.close()
    assert json.loads(run_command(stage, "queues", "--json", "-Q", "celery").stdout)["queues"][0]["parked"] >= 9_999
    released = json.loads(run_command(stage, "release", "--json", "--force").stdout)
    assert released["unparked"] >= 9_999
    assert parked(stage) == 0


# -- without lanes -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_a_broker_without_lanes_keeps_limits_too(rabbitmq_url, tmp_path):
    with Stage(tmp_path, rabbitmq_url, f"sqlite:///{tmp_path}/results.sqlite3", app=APP) as stage:
        with stage.worker(concurrency=2), stage.worker(name="other", concurrency=2):
            send(stage, "mail", range(60))
            send(stage, "two", [f"k{n}" for n in range(6)], "a", None, 0.1)
            send(stage, "free", [f"free{n}" for n in range(20)])
            wait_until(lambda: sum(each.key.startswith("free") for each in ran(stage)) == 20, 10)
            wait_until(lambda: len(ran(stage)) == 86, 40, lambda: f"{len(ran(stage))} ran")
        assert most_at_once(stage, ()) <= 2
        mails = [each.at for each in ran(stage) if each.key.isdigit()]
        assert most_in_a_window(sorted(mails), 1.0) <= 40


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limits": "100/s"}, r"limits of task t is a celeriac.Limit or a list of them, not '100/s'"),
        (
            {"limits": Limit("1/s", key="{tenent}")},
            r"names the argument 'tenent', which there is not.*Did you mean 'tenant'",
        ),
        ({"limits": Limit("1/s", weight="{page}")}, r"limits \(weight\) of task t names the argument 'page'"),
        ({"limits": [Limit("1/s"), Limit(concurrency=2)]}, r"two limits named 't': write one Limit with both"),
        ({"rate_limit_scope": "cluster"}, r"has rate_limit_scope and no rate_limit"),
        ({"rate_limit": "1/s", "rate_limit_scope": "globe"}, r"is 'worker' or 'cluster', not 'globe'"),
        ({"limit": Limit("1/s")}, r"an option 'limit', which there is not. Did you mean 'limits'"),
    ],
)
def test_what_cannot_work_is_refused_when_the_task_is_declared(options, text):
    app = Celery("declaring", set_as_current=False)
    with pytest.raises(ConfigurationError, match=text):

        @app.task(name="t", shared=False, lazy=False, **options)
        def task(tenant, pages):
            """Do nothing."""


def test_a_limit_that_the_broker_cannot_keep_is_refused_when_a_worker_starts(tmp_path):
    with Stage(tmp_path, f"filesystem://{tmp_path}", f"sqlite:///{tmp_path}/r.sqlite3", app=APP) as stage:
        worker = stage.worker(pool="solo")
        worker.launch()
        assert worker.wait(30) != 0
        assert "has a concurrency, and the broker at" in worker.log()


def do_nothing():
    """Do nothing."""


def test_two_limits_of_one_name_that_differ_are_refused_when_a_worker_starts():
    app = Celery("declaring", set_as_current=False)
    for n in (1, 2):
        app.task(name=f"t{n}", shared=False, lazy=False, limits=Limit(f"{n}/s", name="both"))(do_nothing)
    with pytest.raises(ConfigurationError, match=r"Two limits have the name 'both' and differ: 1/s and 2/s"):
        Limiting(app)
