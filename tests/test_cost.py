"""What tasks cost the store: round trips and commands, counted by the server itself.  Nothing here is a timing."""

from __future__ import annotations

import time

import pytest

from celeriac.brokers.redis import RedisBroker
from celeriac.compat import connect
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from tests.helpers import wait_until
from tests.workers import Stage, measured

TASKS = 2000
QUEUE = "celery"
SCANS = {"keys", "scan", "hscan", "sscan", "zscan", "hgetall", "smembers", "sort"}


@pytest.fixture
def client(redis_server):
    """A server of its own, so that nobody else's commands are counted."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def stage(redis_server, tmp_path):
    with Stage(tmp_path, redis_server.url) as stage:
        yield stage


def calls(client):
    """How often each command was run since the server started, in scripts and outside."""
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


def more(before, after):
    """What was called in between; ``info`` is our own."""
    grown = {name: count - before.get(name, 0) for name, count in after.items() if not name.startswith("info")}
    return {name: count for name, count in grown.items() if count}


@pytest.mark.parametrize("task", ["trivial", "note_late"])
def test_a_backlog_costs_well_under_a_tenth_of_a_round_trip_per_task(stage, client, task):
    """Without and with results."""
    with stage.client.batch():
        for n in range(TASKS):
            stage.send(task, *([] if task == "trivial" else [str(n)]), ignore_result=task == "trivial")
    before = calls(client)
    with stage.worker():
        wait_until(lambda: client.llen(QUEUE) == 0, 30, interval=0.2)
        wait_until(lambda: client.eval(LEASED, 0) == 0, 30, interval=0.2)
        spent = more(before, calls(client))
    round_trips = spent["evalsha"] + spent.get("hkeys", 0) + spent.get("hmget", 0)
    measured(f"{task}: {round_trips / TASKS:.4f} round trips and {sum(spent.values()) / TASKS:.2f} commands per task")
    assert round_trips / TASKS < 0.1, spent
    assert sum(spent.values()) / TASKS < (2 if task == "trivial" else 6), spent
    assert not SCANS & set(spent)


LEASED = """
local held = 0
for _, owner in ipairs(redis.call('ZRANGE', 'celeriac:owners', 0, -1)) do
  local key = 'celeriac:lease:' .. owner
  held = held + redis.call('HLEN', key) - redis.call('HEXISTS', key, 'n')
end
return held
"""


def test_a_task_that_is_sent_costs_one_round_trip(stage, client):
    stage.send("trivial")
    broker, before = connect.producer(stage.client), calls(client)
    trips = broker.round_trips
    for _ in range(10):
        stage.send("trivial")
    assert broker.round_trips - trips == 10
    assert more(before, calls(client)) == {"lpush": 10}


def test_a_batch_costs_one_round_trip(stage, client):
    stage.send("trivial")
    broker, before = connect.producer(stage.client), calls(client)
    trips = broker.round_trips
    with stage.client.batch():
        for _ in range(1000):
            stage.send("trivial")
    assert broker.round_trips - trips == 1
    assert more(before, calls(client)) == {"lpush": 1}


def test_a_group_costs_one_round_trip(stage, client):
    from celery import group  # noqa: PLC0415 - so that only this test needs the canvas

    stage.send("trivial")
    broker = connect.producer(stage.client)
    trips = broker.round_trips
    group(stage.signature("trivial") for _ in range(100)).apply_async()
    assert broker.round_trips - trips == 1


def work_on(client, url, backlog):
    """What one turn of everything costs with so much in the queue, in the schedule, and among the dead."""
    client.flushall()
    broker = RedisBroker.from_url(url)
    broker.register("one", [QUEUE], 60)
    later = time.time() + 3600
    for start in range(0, backlog, 1000):
        broker.publish([Message(QUEUE, b"x%d" % n) for n in range(start, start + 1000)])
        broker.publish([Message(QUEUE, b"y%d" % n, due=later + n) for n in range(start, start + 1000)])
    before = calls(client)
    held = broker.lease("one", [QUEUE], 100)
    broker.settle("one", [Outcome(delivery, State.SUCCEEDED) for delivery in held[:50]])
    broker.release("one", [delivery.tag for delivery in held[50:90]])
    broker.promote([QUEUE])
    broker.depth([QUEUE])
    broker.beat(["one"], [QUEUE], 60)
    broker.expired()
    broker.condemn("one")
    held = broker.leased("one")
    broker.settle_condemned("one", [Outcome(each, State.INTERRUPTED, requeue=each.raw) for each in held])
    broker.unregister("one")
    spent = more(before, calls(client))
    broker.close()
    return spent


def test_no_script_does_more_work_because_more_messages_wait(redis_server, client):
    url = redis_server.url
    work_on(client, url, 1000)  # loads the scripts
    few = work_on(client, url, 1000)
    many = work_on(client, url, 20_000)
    assert few == many
    assert not SCANS & set(many)


def test_an_idle_worker_makes_few_calls(stage, client):
    with stage.worker(concurrency=4):
        time.sleep(1.0)  # the last messages of its start
        before, started = calls(client), time.monotonic()
        time.sleep(3.0)
        spent = more(before, calls(client))
        per_second = sum(spent.values()) / (time.monotonic() - started)
    measured(f"{per_second:.0f} commands per second")
    assert per_second < 60, spent
    assert spent["evalsha"] / 3 < 20, spent
