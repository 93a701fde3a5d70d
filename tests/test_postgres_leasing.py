"""Where leasing from PostgreSQL begins: after what the session leased before, and yet nothing is passed over.

The server's own counts of what it reads decide, and never times.
"""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from celeriac.brokers.postgres import PostgresBroker
from celeriac.brokers.postgres.broker import COPY_FROM
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from celeriac.postgres_store import PostgresOptions, PostgresStore, schema
from tests.conformance.kits import QUEUE, owner_of
from tests.helpers import wait_until
from tests.workers import measured

CHURNED = 6000
LEASE = """
EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
SELECT FROM celeriac.lease((SELECT id FROM celeriac.owners WHERE name = %s), ARRAY[%s], 2)
"""


@pytest.fixture
def broker(postgres_url):
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as broker:
        yield broker


def raws(deliveries):
    return [int(delivery.raw) for delivery in deliveries]


def numbered(*numbers, priority=0):
    return [Message(QUEUE, b"%d" % number, priority) for number in numbers]


def blocks_read(broker, owner, times=1):
    """What a lease reads, in the session that the broker's calls go to; the least of several, all of which happen."""

    def lease(connection):
        for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"):
            connection.execute(f"SET {setting} = off")
        return connection.execute(LEASE, (owner, QUEUE)).fetchone()[0][0]["Plan"]

    plans = [broker.database.use(lease) for _ in range(times)]
    return min(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)


def test_a_lease_does_not_walk_over_what_an_old_transaction_keeps_from_being_vacuumed(broker, postgres_url):
    owner = owner_of(broker, [QUEUE])
    with psycopg.connect(postgres_url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM celeriac.messages")
        broker.publish([Message(QUEUE, b"x" * 1000)] * CHURNED)
        held = broker.lease(owner, [QUEUE], 1000)
        while held:
            _, held = broker.turn(owner, [Outcome(delivery, State.SUCCEEDED) for delivery in held], [QUEUE], 1000)
        broker.publish(numbered(*range(50)))
        assert len(broker.lease(owner, [QUEUE], 2)) == 2
        read = blocks_read(broker, owner, 6)
        # A session that remembers nothing has to walk: so there is something to walk over.
        with closing(PostgresBroker(PostgresOptions(postgres_url))) as fresh:
            fresh.ping()
            walked = blocks_read(fresh, owner)
        measured(f"a lease reads {read} blocks, and {walked} from the start of the queue")
        assert read < 200
        assert walked > 800 + read


def test_what_another_session_puts_back_comes_first_again(broker, postgres_url):
    owner = owner_of(broker, [QUEUE])
    broker.publish(numbered(*range(20)))
    with closing(PostgresBroker(PostgresOptions(postgres_url))) as other:
        stranger = owner_of(other, [QUEUE])
        theirs = other.lease(stranger, [QUEUE], 4)
        assert raws(broker.lease(owner, [QUEUE], 3)) == [4, 5, 6]
        other.settle(stranger, [Outcome(theirs[3], State.INTERRUPTED, requeue=theirs[3].raw)])
        other.release(stranger, [theirs[1].tag])
    assert raws(broker.lease(owner, [QUEUE], 1)) == [1]
    assert raws(broker.lease(owner, [QUEUE], 4)) == [3, 7, 8, 9]


def test_priorities_are_kept_to_when_urgent_work_comes_late(broker):
    owner = owner_of(broker, [QUEUE])
    broker.publish([*numbered(*range(10), priority=6), *numbered(*range(10, 20), priority=3)])
    first = broker.lease(owner, [QUEUE], 2)
    assert raws(first) == [10, 11]
    broker.publish(numbered(20, 21, priority=0))
    assert raws(broker.lease(owner, [QUEUE], 3)) == [20, 21, 12]
    broker.release(owner, [first[0].tag])
    assert raws(broker.lease(owner, [QUEUE], 9)) == [10, *range(13, 20), 0]


def test_what_is_committed_late_is_found_in_the_midst_of_a_backlog(broker, postgres_url):
    owner = owner_of(broker, [QUEUE])
    seen = []

    def take():
        broker.publish(numbered(0))
        seen.extend(raws(broker.lease(owner, [QUEUE], 1)))
        return 111 in seen

    with psycopg.connect(postgres_url) as slow:
        slow.execute("INSERT INTO celeriac.messages (queue, priority, raw) VALUES (%s, 0, '111')", (QUEUE,))
        broker.publish(numbered(*[0] * 10))
        assert raws(broker.lease(owner, [QUEUE], 3)) == [0, 0, 0]
        slow.commit()
    wait_until(take, 10)


def test_a_queue_that_seems_empty_is_looked_at_from_its_start(broker, postgres_url):
    owner = owner_of(broker, [QUEUE])
    with psycopg.connect(postgres_url) as slow:
        for number in range(20):
            slow.execute(
                "INSERT INTO celeriac.messages (queue, priority, raw) VALUES (%s, 0, %s)", (QUEUE, b"%d" % number)
            )
            broker.publish(numbered(100 + number))
            assert raws(broker.lease(owner, [QUEUE], 9)) == [100 + number]
            slow.commit()
            assert raws(broker.lease(owner, [QUEUE], 9)) == [number]
            assert broker.lease(owner, [QUEUE], 9) == []


def test_what_a_lost_lease_had_locked_is_found_in_the_midst_of_a_backlog(broker, postgres_url):
    owner = owner_of(broker, [QUEUE])
    broker.publish(numbered(*range(5)))
    seen = []

    def take():
        broker.publish(numbered(9))
        seen.extend(raws(broker.lease(owner, [QUEUE], 1)))
        return {0, 1} <= set(seen)

    with psycopg.connect(postgres_url) as lost:
        lost.execute("SELECT FROM celeriac.lease((SELECT id FROM celeriac.owners LIMIT 1), ARRAY[%s], 2)", (QUEUE,))
        assert raws(broker.lease(owner, [QUEUE], 2)) == [2, 3]
        lost.rollback()
    wait_until(take, 10)
    assert seen.count(0) == seen.count(1) == 1


def test_order_is_kept_where_messages_lie_in_space_that_was_used_before(broker, shared_postgres, postgres_url):
    owner = owner_of(broker, [QUEUE])
    broker.publish(numbered(*range(60)))
    held = broker.lease(owner, [QUEUE], 60)
    broker.settle(owner, [Outcome(delivery, State.SUCCEEDED) for delivery in held[::2]])
    shared_postgres.execute("VACUUM celeriac.messages", postgres_url.rpartition("/")[2])
    broker.publish(numbered(*range(100, 200)))
    found = broker.lease(owner, [QUEUE], 100)
    assert raws(found) == list(range(100, 200))
    assert [delivery.tag for delivery in found] == sorted(delivery.tag for delivery in found)


def test_many_messages_go_by_copy_in_three_round_trips(broker):
    owner = owner_of(broker, [QUEUE])
    before = broker.round_trips
    broker.publish([Message(QUEUE, b"x" * 2000, n % 2 * 9) for n in range(COPY_FROM)])
    assert broker.round_trips - before == 3
    before = broker.round_trips
    broker.publish(numbered(*range(COPY_FROM - 1)))
    assert broker.round_trips - before == 1
    assert broker.depth([QUEUE])[0].ready == 2 * COPY_FROM - 1
    assert broker.depth([QUEUE])[0].oldest_age < 60
    assert {delivery.raw for delivery in broker.lease(owner, [QUEUE], 3)} == {b"x" * 2000}


def test_a_schema_of_the_first_version_is_brought_up_to_date_with_what_is_in_it(shared_postgres, monkeypatch):
    name = shared_postgres.new_database()
    options = PostgresOptions(shared_postgres.database_url(name))
    every = schema.migrations()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda: every[:1])
        with closing(PostgresBroker(options)) as old:
            owner = owner_of(old, [QUEUE])
            old.publish(numbered(*range(6)))
            held = old.lease(owner, [QUEUE], 3)
            old.release(owner, [held[0].tag])
            assert old.database.version() == 1
            assert PostgresStore(options).script() == ""
            # Another node of the new version begins, and the old one works on.
            patch.undo()
            with closing(PostgresBroker(options)) as new:
                assert new.database.migrate() == [2]
                old.publish(numbered(6))
                done = [Outcome(held[1], State.SUCCEEDED), Outcome(held[2], State.INTERRUPTED, requeue=b"22")]
                assert old.turn(owner, done, [QUEUE], 1)[0].fenced == 0
                assert raws(new.lease(owner_of(new, [QUEUE]), [QUEUE], 9)) == [22, 3, 4, 5, 6]
    shared_postgres.drop_database(name)
