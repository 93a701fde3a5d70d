"""What tasks cost PostgreSQL, counted by the server itself: transactions, log, and how its tables are read.  No timings."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from celeriac.backends.postgres import PostgresBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.compat import connect
from celeriac.message import Message
from celeriac.outcome import DeadLetter, Outcome, State
from celeriac.postgres_store import PostgresOptions
from tests.conformance.kits import owner_of, part, record
from tests.helpers import wait_until
from tests.workers import Stage, measured

TASKS = 2000
BIG = ("messages", "scheduled", "results", "groups", "chords", "chord_parts", "mailbox_messages")
"""Tables that may be long.  Of the others there are as many rows as slots, or as many dead letters as are kept."""

FILL = """
INSERT INTO celeriac.messages (queue, priority, queued_at, raw)
    SELECT 'long', n % 4 * 3, now(), 'x' FROM generate_series(1, 60000) AS n;
INSERT INTO celeriac.messages (owner, tag, queue, priority, queued_at, raw)
    SELECT 999, -n, 'long', 0, now(), 'x' FROM generate_series(1, 20000) AS n;
INSERT INTO celeriac.scheduled (queue, priority, due, raw)
    SELECT 'long', 0, now() + n * interval '1 hour', 'x' FROM generate_series(1, 30000) AS n;
INSERT INTO celeriac.results (task_id, state, at, payload)
    SELECT n, 'SUCCESS', now() - interval '1 hour' * (n / 1000), 'x' FROM generate_series(1, 60000) AS n;
INSERT INTO celeriac.groups (group_id, at, payload) SELECT n, now(), 'x' FROM generate_series(1, 20000) AS n;
INSERT INTO celeriac.chords (group_id, at, done) SELECT n, now(), true FROM generate_series(1, 20000) AS n;
INSERT INTO celeriac.chord_parts (group_id, position, task_id, payload)
    SELECT n, 0, n, 'x' FROM generate_series(1, 20000) AS n;
INSERT INTO celeriac.mailbox_messages (mailbox, at, raw) SELECT 'm' || n, now(), 'x' FROM generate_series(1, 20000) AS n;
"""


@pytest.fixture
def name(shared_postgres, postgres_url):
    return postgres_url.rpartition("/")[2]


def scans(server, name):
    """How often each big table was read from its first row to its last."""
    rows = server.execute(
        "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables WHERE schemaname = 'celeriac'", name
    )
    return {table: (whole, by_index or 0) for table, whole, by_index in rows if table in BIG}


def use_everything(broker, backend):
    """Every call that workers and clients make."""
    queues = ["long", "empty", "work"]
    owner = owner_of(broker, queues)
    for _ in range(12):  # beyond the five runs after which the server plans once and for all
        broker.publish([Message("work", b"w"), Message("work", b"later", 0, time.time() + 0.001)])
        broker.wait(queues, 0.01)
        broker.promote(queues)
        held = broker.lease(owner, queues, 5) + broker.lease(owner, ["work"], 2)
        backend.start_chord("g", 2)
        done, back, dead, *rest = held
        outcomes = [
            Outcome(done, State.SUCCEEDED, (record("t"),), (Message("work", b"n"),), (part("g", 0),)),
            Outcome(back, State.INTERRUPTED, requeue=b"again"),
            Outcome(dead, State.FAILED, dead=DeadLetter("failed", "no")),
        ]
        broker.settle(owner, outcomes)
        broker.release(owner, [delivery.tag for delivery in rest])
        backend.store([record("t"), record("u")], guarded=True)
        backend.fetch(["t", "u", "v"])
        backend.wait(["t", "u"], 0.01)
        backend.store_group("g", b"x")
        backend.count_parts([part("g", 1), part("h", 0)])
        backend.chord_parts("g")
        backend.finish_chord("g")
        backend.forget(["u"])
        backend.expire(100)
        broker.beat([owner], queues, 60)
        broker.expired()
        broker.leased(owner)
        broker.purge("empty")
    broker.depth(queues)
    broker.condemn(owner)
    broker.settle_condemned(owner, [Outcome(d, State.INTERRUPTED, requeue=d.raw) for d in broker.leased(owner)])
    broker.unregister(owner)


@pytest.mark.parametrize("statistics", ["of an empty table", "true"])
def test_no_long_table_is_read_whatever_the_planner_believes(shared_postgres, postgres_url, name, statistics):
    if statistics != "true":
        shared_postgres.execute("ANALYZE", name)
    shared_postgres.execute(FILL, name)
    if statistics == "true":
        shared_postgres.execute("ANALYZE", name)
    before = scans(shared_postgres, name)
    options = PostgresOptions(postgres_url)
    with closing(PostgresBackend(options)) as backend, closing(PostgresBroker(options, backend)) as broker:
        use_everything(broker, backend)
    # A session's counts are there when it has ended.
    wait_until(lambda: scans(shared_postgres, name)["messages"][1] > before["messages"][1] + 50)
    wait_until(lambda: scans(shared_postgres, name)["chords"][1] > before["chords"][1] + 20)
    after = scans(shared_postgres, name)
    assert {table: after[table][0] - before[table][0] for table in BIG} == dict.fromkeys(BIG, 0)


def spent(server, name):
    """Transactions, and bytes of write-ahead log."""
    ((transactions, log),) = server.execute(
        "SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database WHERE datname = current_database()",
        name,
    )
    return int(transactions), int(log)


def cost_of_a_backlog(server, name, stage, task):
    """Transactions and bytes of log per task."""
    with stage.client.batch():
        for n in range(TASKS):
            stage.send(task, *([] if task == "trivial" else [str(n)]), ignore_result=task == "trivial")
    before = spent(server, name)
    with stage.worker():
        wait_until(stage.is_drained, 60, interval=0.3)
    wait_until(lambda: spent(server, name)[0] > before[0])
    transactions, log = ((now - then) / TASKS for now, then in zip(spent(server, name), before, strict=True))
    measured(f"{task}: {transactions:.4f} transactions and {log:.0f} bytes of log per task")
    return transactions, log


@pytest.mark.parametrize("task", ["trivial", "note_late"])
def test_a_backlog_costs_well_under_a_tenth_of_a_transaction_per_task(
    shared_postgres, postgres_url, name, tmp_path, task
):
    """Without results, and with them: then who waits for them is asked for in a second transaction of the same round trip.

    Batches are bounded by time, so a busy machine makes them smaller and costs more: the best of three counts.
    """
    most, most_log = (0.1, 2000) if task == "trivial" else (0.2, 4000)
    with Stage(tmp_path, postgres_url) as stage:
        for _ in range(3):
            transactions, log = cost_of_a_backlog(shared_postgres, name, stage, task)
            assert log < most_log
            if transactions < most:
                return
    pytest.fail(f"{transactions:.4f} transactions per task")


def test_a_task_that_is_sent_costs_one_round_trip(postgres_url, tmp_path):
    with Stage(tmp_path, postgres_url) as stage:
        stage.send("trivial")
        broker = connect.producer(stage.client)
        before = broker.round_trips
        for _ in range(10):
            stage.send("trivial")
        assert broker.round_trips - before == 10
