"""Many schedulers of one schedule, killed as they go: each tick is sent once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery
from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.envelope import decode
from celeriac.compat.periodic.console import Console
from celeriac.compat.periodic.scheduler import OFFICE, StoreScheduler
from celeriac.compat.periodic.state import EntryState, States
from celeriac.engine.leader import LEADERS, Leader
from celeriac.errors import ConfigurationError
from celeriac.outcome import Result
from tests.helpers import wait_until
from tests.servers import die_with_parent

ROOT = Path(__file__).parent.parent
MONTH = 30 * 86_400.0
MONTH_TAKES = 5.0
"""Seconds that the simulated month takes."""
START = datetime(2026, 5, 1, tzinfo=timezone.utc)
LEASE = 0.4

SCHEDULE: dict[str, dict[str, Any]] = {
    "hourly": {"task": "hourly", "schedule": 3600.0, "missed": "run"},
    "twice a day": {"task": "twice", "schedule": 43_200.0, "missed": "run"},
}


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def store_url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def app(store_url) -> Iterator[Celery]:
    app = Celery("scheduling", broker=store_url, backend=store_url, set_as_current=False)
    app.conf.update(timezone="UTC", beat_schedule=SCHEDULE, celeriac_beat_lease=LEASE)
    yield app
    connect.producer(app).close()
    app.close()


def queued(broker: Broker, queue: str = "celery") -> list[dict[str, Any]]:
    """Headers of all messages of a queue, which is empty afterwards."""
    owner = f"reader-{time.monotonic_ns()}"
    broker.register(owner, [queue], 60)
    found: list[dict[str, Any]] = []
    while deliveries := broker.lease(owner, [queue], 1000):
        found += [decode(delivery.raw)["headers"] for delivery in deliveries]
    return found


class Schedulers:
    """Scheduler processes in simulated time.

    Args:
        directory: where they find each other.
        url: of their store.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": url,
            "TEST_CONF": json.dumps({"beat_schedule": SCHEDULE, "celeriac_beat_lease": LEASE}),
        }  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        """Start so many, and wait until they are ready to begin."""
        command = [*die_with_parent(), sys.executable, "-m", "tests.apps.scheduling", str(self._directory)]
        self.processes = [subprocess.Popen(command, env=self._environment, cwd=ROOT) for _ in range(count)]
        wait_until(lambda: len(list(self._directory.glob("ready-*"))) == count, 60)

    def begin(self, **simulation: float) -> None:
        """Let time run."""
        draft = self._directory / "draft"
        draft.write_text(json.dumps(simulation))
        draft.rename(self._directory / "go")

    def kill(self, pid: int) -> bool:
        """SIGKILL one of them by its process id."""
        for process in self.processes:
            if process.pid == pid and process.poll() is None:
                process.kill()
                process.wait()
                return True
        return False

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.timeout(180)
def test_ten_schedulers_whose_leaders_are_killed_send_each_tick_of_a_month_once(app, store_url, tmp_path):
    store = connect.open_key_values(app)
    states, begin = States(store), START.timestamp()
    for name in SCHEDULE:
        states.change(name, lambda state: replace(state, last=begin))

    def is_over() -> bool:
        return all(state and state.last >= begin + MONTH - 1 for state in states.read(list(SCHEDULE))[1].values())

    schedulers, kills = Schedulers(tmp_path, store_url), 0
    try:
        schedulers.start(10)
        origin, _ = store.read(LEADERS, [])
        schedulers.begin(speed=MONTH / MONTH_TAKES, origin=origin, begin=begin, end=begin + MONTH + 60)
        while kills < 9 and not is_over():
            time.sleep(0.6)
            _, (entry,) = store.read(LEADERS, [OFFICE])
            kills += schedulers.kill(int(json.loads(entry.value)["name"].split(":")[1])) if entry else 0
        wait_until(is_over, 60)
    finally:
        schedulers.close()

    broker = connect.open_broker(app)
    sent = Counter((headers["task"], headers["celeriac-tick"]) for headers in queued(broker))
    broker.close()
    expected = {
        (name, (START + timedelta(seconds=period * n)).timestamp())
        for name, period in (("hourly", 3600), ("twice", 43_200))
        for n in range(1, int(MONTH // period) + 1)
    }
    assert kills >= 3
    assert set(sent) == expected
    assert set(sent.values()) == {1}


def test_a_tick_is_sent_once_when_two_schedulers_both_believe_they_lead(app):
    schedulers = [StoreScheduler(app), StoreScheduler(app)]
    now, _ = schedulers[0].store.read(LEADERS, [])
    for name in SCHEDULE:
        schedulers[0].states.change(name, lambda state: replace(state, last=now - 3.5 * 3600))
    entry = schedulers[0].schedule["hourly"]
    stale: EntryState = schedulers[0].states.read(["hourly"])[1]["hourly"]

    first = schedulers[0].sender.send(entry, stale, now - 2.5 * 3600)
    second = schedulers[1].sender.send(entry, stale, now - 2.5 * 3600)

    assert first is not None
    assert second is None
    assert len(queued(connect.producer(app))) == 1


def test_another_leads_when_the_leader_resigns_or_falls_silent(app):
    store = connect.open_key_values(app)
    one, other = Leader(store, "test", "one", 0.3), Leader(store, "test", "other", 0.3)
    assert one.hold()
    assert not other.hold()
    assert other.rival == "one"

    one.resign()
    assert other.hold()
    assert other.token > 1
    wait_until(one.hold, 5)
    assert one.token > 2


def test_a_lease_from_a_clock_that_ran_ahead_is_not_believed(app):
    store = connect.open_key_values(app)
    now, _ = store.read(LEADERS, [])
    ahead = {"name": "ahead", "token": 7, "until": now + 3600, "lease": 10}
    store.write(LEADERS, "test", json.dumps(ahead).encode(), ttl=None, version=0)

    leader = Leader(store, "test", "one")

    assert leader.hold()
    assert leader.token == 8


# -- what an operator does --------------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(app) -> Iterator[StoreScheduler]:
    scheduler = StoreScheduler(app)
    yield scheduler
    scheduler.close()


def rewind(scheduler: StoreScheduler, name: str, seconds: float) -> None:
    """Make an entry look as if it had been sent so long ago."""
    now, _ = scheduler.store.read(LEADERS, [])
    scheduler.states.change(name, lambda state: replace(state, last=now - seconds))


def test_a_new_entry_waits_for_its_first_tick(app, scheduler):
    assert 3590 < scheduler.run_due() < 3605
    assert queued(connect.producer(app)) == []


def test_a_paused_entry_sends_nothing_and_misses_nothing(app, scheduler):
    console = Console(scheduler)
    rewind(scheduler, "hourly", 10_000)
    console.pause("hourly")
    scheduler.run_due()
    assert queued(connect.producer(app)) == []

    console.resume("hourly")
    scheduler.run_due()

    assert queued(connect.producer(app)) == []
    assert not console.listed()[0].paused


def test_an_edited_entry_goes_by_its_new_schedule_and_arguments(app, scheduler):
    console = Console(scheduler)
    scheduler.run_due()
    listed = console.edit("hourly", {"schedule": "60", "args": [1, 2], "options": {"queue": "other"}}, reset=False)
    assert (listed.schedule, listed.origin) == ("every 1.00 minute", "edited")
    rewind(scheduler, "hourly", 61)

    scheduler.run_due()

    (headers,) = queued(connect.producer(app), "other")
    assert headers["argsrepr"] in ("(1, 2)", "[1, 2]")
    console.edit("hourly", {}, reset=True)
    assert console.listed()[0].schedule == "every 1.00 hour"


@pytest.mark.parametrize("text", ["every day", "0", "-5", "* * *", "99 * * * *"])
def test_a_schedule_that_cannot_work_is_not_kept(scheduler, text):
    console = Console(scheduler)
    with pytest.raises(ConfigurationError, match=r"schedule|Schedule"):
        console.edit("hourly", {"schedule": text}, reset=False)
    assert console.listed()[0].origin == "configured"


def test_an_entry_that_must_not_overlap_waits_for_the_end_of_its_last_run(app, scheduler):
    scheduler.schedule["hourly"].overlap = False
    rewind(scheduler, "hourly", 3601)
    scheduler.run_due()
    (headers,) = queued(connect.producer(app))

    rewind(scheduler, "hourly", 3601)
    scheduler.run_due()
    assert queued(connect.producer(app)) == []
    assert Console(scheduler).listed()[0].skipped == 1

    record = {"task_id": headers["id"], "status": "SUCCESS", "result": None}
    connect.open_backend(app).store([Result(headers["id"], "SUCCESS", json.dumps(record).encode())])
    rewind(scheduler, "hourly", 3601)
    scheduler.run_due()
    assert len(queued(connect.producer(app))) == 1


def test_a_word_that_missed_does_not_know_is_refused(app):
    app.conf.beat_schedule = {"wrong": {"task": "hourly", "schedule": 10, "missed": "later"}}
    with pytest.raises(ConfigurationError, match="'wrong': missed is one of 'merge', 'run', 'skip'"):
        StoreScheduler(app)


def test_one_bad_entry_does_not_stop_the_others(app, scheduler):
    class Broken(type(scheduler.schedule["hourly"].schedule)):
        def remaining_estimate(self, last_run_at):
            raise RuntimeError("no idea")

    scheduler.schedule["hourly"].schedule = Broken(3600.0, app=app)
    rewind(scheduler, "twice a day", 43_300)

    scheduler.run_due()

    assert [headers["task"] for headers in queued(connect.producer(app))] == ["twice"]
