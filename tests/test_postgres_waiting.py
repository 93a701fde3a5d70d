"""Waking on PostgreSQL: by notification, only when somebody waits, and by looking where a pooler stands in between."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing

import psycopg
import pytest

from celeriac.backends.postgres import PostgresBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.outcome import Outcome, State
from celeriac.postgres_store import PostgresOptions
from tests.conformance.kits import QUEUE, messages, owner_of, raws, record
from tests.helpers import wait_until
from tests.server_postgres import PgBouncer
from tests.workers import Stage


@pytest.fixture
def bouncer(shared_postgres):
    with PgBouncer(shared_postgres) as bouncer:
        yield bouncer


@pytest.fixture
def pooled_url(bouncer, postgres_url):
    return bouncer.database_url(postgres_url.rpartition("/")[2])


def test_a_worker_and_a_client_do_their_work_through_pgbouncer_in_transaction_mode(pooled_url, tmp_path):
    conf = {"worker_enable_remote_control": True}
    with Stage(tmp_path, pooled_url, conf=conf) as stage, stage.worker():
        results = stage.send_many("note_late", [f"k{n}" for n in range(200)])
        assert all(result.get(timeout=30) for result in results)
        started = time.monotonic()
        assert stage.send("note", "alone").get(timeout=10) == "alone"
        assert time.monotonic() - started < 2
        wait_until(lambda: stage.client.control.ping(timeout=2, limit=1))
        stage.wait_until_drained()


def test_through_a_pooler_waiting_is_looking(pooled_url, postgres_url):
    with (
        closing(PostgresBroker(PostgresOptions(pooled_url))) as pooled,
        closing(PostgresBroker(PostgresOptions(postgres_url))) as direct,
    ):
        pooled.ping()
        assert not pooled.database.notifies
        direct.ping()
        assert direct.database.notifies
        timer = threading.Timer(0.2, direct.publish, [messages("a")])
        timer.start()
        began = time.monotonic()
        assert pooled.wait([QUEUE], 10)
        assert time.monotonic() - began < 2
        timer.join()


def test_nothing_is_notified_while_nobody_waits(shared_postgres, postgres_url):
    """Those that notify commit one after another, so nobody should without need."""
    options = PostgresOptions(postgres_url)
    with (
        closing(PostgresBackend(options)) as backend,
        closing(PostgresBroker(options, backend)) as broker,
        psycopg.connect(postgres_url, autocommit=True) as listener,
    ):
        listener.execute('LISTEN "celeriac.ready"')
        owner = owner_of(broker)
        for _ in range(5):
            broker.publish(messages("a"))
            (delivery,) = broker.lease(owner, [QUEUE], 1)
            broker.settle(owner, [Outcome(delivery, State.SUCCEEDED, (record("t"),))])
        assert list(listener.notifies(timeout=0.2)) == []


def test_a_message_from_a_sender_that_died_before_it_could_notify_is_found_within_a_second_or_so(
    shared_postgres, postgres_url
):
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as broker:
        insert = "SELECT celeriac.enqueue(ARRAY['images'], ARRAY[0::smallint], NULL, ARRAY['x'::bytea])"
        name = postgres_url.rpartition("/")[2]
        timer = threading.Timer(0.1, shared_postgres.execute, [insert, name])
        timer.start()
        began = time.monotonic()
        assert broker.wait([QUEUE], 10)
        assert 0.1 < time.monotonic() - began < 4
        timer.join()


def test_who_waits_leaves_nothing_behind(shared_postgres, postgres_url):
    name = postgres_url.rpartition("/")[2]
    options = PostgresOptions(postgres_url)
    with closing(PostgresBackend(options)) as backend, closing(PostgresBroker(options)) as broker:
        assert not backend.wait(["a", "b"], 0.05)
        assert not broker.wait([QUEUE], 0.05)
        assert shared_postgres.execute("SELECT count(*) FROM celeriac.waiters", name) == [(0,)]
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert shared_postgres.execute(locks, name) == [(0,)]


def test_waiting_costs_next_to_nothing(postgres_url):
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as broker:
        broker.wait([QUEUE], 0.01)
        used = time.process_time()
        assert not broker.wait([QUEUE], 2.0)
        assert time.process_time() - used < 0.1


def test_the_child_of_a_fork_has_connections_of_its_own(postgres_url):
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as broker:
        owner = owner_of(broker)
        broker.publish(messages("parent"))
        pid = os.fork()
        if not pid:
            try:
                broker.publish(messages("child"))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        broker.publish(messages("parent again"))
        assert raws(broker.lease(owner, [QUEUE], 9)) == [b"parent", b"child", b"parent again"]


def test_a_connection_that_the_server_cut_is_replaced_without_a_failed_call(shared_postgres, postgres_url):
    name = postgres_url.rpartition("/")[2]
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as broker:
        broker.ping()
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'celeriac'"
        shared_postgres.execute(cut, name)
        wait_until(lambda: not broker.database._idle[0].is_fresh)  # noqa: SLF001 - there is no other way to know
        broker.publish(messages("a"))
        assert broker.depth([QUEUE])[0].ready == 1
