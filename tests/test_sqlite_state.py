"""What only the SQLite store promises, and what needs a clock in the test's hand."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from celeriac.backends.sqlite import SQLiteBackend
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.errors import OwnerLost
from celeriac.outcome import Outcome, State
from tests.conformance.kits import QUEUE, TTL, done, failed, kill, messages, owner_of, part, places, raws, record


class Clock:
    """Wall-clock time that the test moves."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now

    def pass_seconds(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "celeriac.sqlite3"


@pytest.fixture
def broker(path, clock):
    with closing(SQLiteBroker(path, clock=clock, dead_limit=3)) as broker:
        yield broker


@pytest.fixture
def backend(path, clock):
    with closing(SQLiteBackend(path, result_ttl=100.0, clock=clock)) as backend:
        yield backend


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_a_rescue_that_was_cut_short_is_anybodys_after_ten_seconds(broker, clock):
    broker.publish(messages("a"))
    owner = owner_of(broker)
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.condemn(owner)
    clock.pass_seconds(9)
    broker.condemn(owner)
    assert broker.expired() == []
    clock.pass_seconds(2)
    assert broker.expired() == [owner]
    broker.settle_condemned(owner, done(delivery))
    assert broker.expired() == []


def test_a_condemned_owner_cannot_register_again(broker):
    owner = owner_of(broker)
    broker.condemn(owner)
    with pytest.raises(OwnerLost):
        broker.register(owner, [QUEUE], TTL)


def test_condemned_owners_that_nobody_unregistered_are_forgotten_after_a_day(broker, clock):
    forgotten = owner_of(broker)
    broker.condemn(forgotten)
    clock.pass_seconds(100_000)
    owner_of(broker)
    broker.register(forgotten, [QUEUE], TTL)  # the name is free: the row was deleted


def test_a_rescuer_cannot_settle_for_a_live_owner(broker):
    broker.publish(messages("a"))
    owner = owner_of(broker)
    held = broker.lease(owner, [QUEUE], 1)
    assert broker.settle_condemned(owner, done(*held)).fenced == 1
    assert broker.leased(owner) == held


def test_the_callback_of_a_chord_goes_to_another_member_after_ten_seconds(backend, clock):
    backend.start_chord("g", 2)
    first, last = part("g", 0), part("g", 1)
    assert backend.count_parts([first, last]) == [last]
    clock.pass_seconds(9)
    assert backend.count_parts([first]) == []
    clock.pass_seconds(2)
    assert backend.count_parts([first]) == [first]
    assert backend.count_parts([last]) == []


def test_a_chord_that_grows_after_it_was_complete_completes_again(backend):
    backend.start_chord("g", 1)
    assert backend.count_parts([part("g", 0)]) == [part("g", 0)]
    backend.grow_chord("g", 1)
    assert backend.count_parts([part("g", 0)]) == []
    assert backend.count_parts([part("g", 1)]) == [part("g", 1)]


def test_a_finished_chord_may_be_started_anew(backend):
    backend.start_chord("g", 1)
    backend.count_parts([part("g", 0)])
    backend.finish_chord("g")
    backend.start_chord("g", 2)
    assert backend.count_parts([part("g", 0)]) == []
    assert backend.count_parts([part("g", 1)]) == [part("g", 1)]


def test_expiry_deletes_results_groups_and_chords_in_bounded_batches(backend, clock):
    backend.store([record(str(n)) for n in range(10)])
    backend.store_group("g", b"group")
    backend.start_chord("g", 100)
    backend.count_parts([part("g", n) for n in range(10)])
    clock.pass_seconds(99)
    assert backend.expire() == 0
    backend.store([record("young"), record("0")])
    clock.pass_seconds(2)
    assert backend.fetch(["1", "0"]) == [None, record("0").payload]
    deleted = [backend.expire(limit=4) for _ in range(6)]
    assert deleted == [4, 4, 4, 4, 4, 1]  # 9 results, the group, the chord and its 10 parts
    assert backend.expire() == 0
    assert backend.fetch(["young"]) == [record("young").payload]
    assert backend.chord_parts("g") == []


def test_a_finished_chord_is_remembered_for_a_day(backend, clock):
    backend.start_chord("g", 1)
    backend.count_parts([part("g", 0)])
    backend.finish_chord("g")
    clock.pass_seconds(80_000)
    assert backend.expire() == 0
    assert backend.count_parts([part("g", 0)]) == []
    clock.pass_seconds(10_000)
    assert backend.expire() == 1


def test_results_without_a_lifetime_stay(path, clock):
    with closing(SQLiteBackend(path, result_ttl=None, clock=clock)) as backend:
        backend.store([record("a")])
        clock.pass_seconds(1e9)
        assert backend.expire() == 0
        assert backend.fetch(["a"]) == [record("a").payload]


def test_looking_for_expired_records_does_not_write(backend, path, clock):
    backend.store([record("a")])
    before = backend.file.read(lambda c: c.execute("PRAGMA data_version").fetchone())
    with closing(SQLiteBackend(path, clock=clock)) as other:
        assert other.expire() == 0
    assert backend.file.read(lambda c: c.execute("PRAGMA data_version").fetchone()) == before


def test_the_oldest_dead_letters_are_dropped_beyond_the_limit(broker):
    for n in range(5):
        kill(broker, str(n))
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3", b"2"]
    assert broker.dead_count() == 3


@pytest.mark.parametrize("id", ["", "x", "-1", "1.5", "9" * 40, "²", "' OR 1"])
def test_what_cannot_be_the_id_of_a_dead_letter_is_none(broker, id):
    kill(broker)
    assert broker.dead_letter(id) is None
    assert not broker.replay(id)
    assert broker.discard([id]) == 0
    assert broker.dead_letters(before=id) == []


def test_messages_of_other_priority_steps_are_leased_too(path):
    with closing(SQLiteBroker(path, priority_steps=range(10))) as fine, closing(SQLiteBroker(path)) as coarse:
        for priority in (5, 4, 1):
            fine.publish(messages(str(priority), priority=priority))
        assert raws(coarse.lease(owner_of(coarse), [QUEUE], 10)) == [b"1", b"4", b"5"]


def test_released_messages_keep_their_age_whoever_releases_them_first(broker):
    first, second = owner_of(broker), owner_of(broker)
    broker.publish(messages("a", "b", "c"))
    (a,) = broker.lease(first, [QUEUE], 1)
    (b,) = broker.lease(second, [QUEUE], 1)
    broker.release(first, [a.tag])
    broker.release(second, [b.tag])
    assert raws(broker.lease(first, [QUEUE], 10)) == [b"a", b"b", b"c"]


def test_a_large_purge_goes_in_batches(broker, monkeypatch):
    monkeypatch.setattr("celeriac.brokers.sqlite._PURGE_BATCH", 10)
    broker.publish(messages(*(str(n) for n in range(25))))
    before = broker.round_trips
    assert broker.purge(QUEUE) == 25
    assert broker.round_trips - before == 3 + 1, "three batches, and a look at what is parked"


# -- every order of calls ----------------------------------------------------------------------------------------------

some = st.integers(0, 6)


class OnePlace(RuleBasedStateMachine):
    """Whatever is called in whatever order, each message is in exactly one place and the counts are right."""

    path = None

    @initialize()
    def begin(self):
        self.clock = Clock()
        self.broker = SQLiteBroker(self.path, clock=self.clock, synchronous="NORMAL")
        for queue in ("a", "b"):
            self.broker.purge(queue)
        self.broker.discard([dead.id for dead in self.broker.dead_letters(10_000)])
        self.owner = owner_of(self.broker)
        self.expected = 0
        self.sent = 0

    def teardown(self):
        self.broker.settle(self.owner, done(*self.broker.leased(self.owner)))
        self.broker.unregister(self.owner)
        self.broker.close()

    def new(self, queue, priority, later):
        self.sent += 1
        due = self.clock.now + later if later else None
        return messages(str(self.sent), queue=queue, priority=priority, due=due)

    @rule(queue=st.sampled_from("ab"), priority=st.integers(0, 9), later=some)
    def publish(self, queue, priority, later):
        self.broker.publish(self.new(queue, priority, later))
        self.expected += 1

    @rule(limit=some)
    def lease(self, limit):
        self.broker.lease(self.owner, ["a", "b"], limit)

    @rule(number=some)
    def release(self, number):
        held = self.broker.leased(self.owner, number) if number else []
        assert self.broker.release(self.owner, [delivery.tag for delivery in held]) == len(held)

    @rule(ending=st.sampled_from(["done", "dead", "requeue", "follow"]), number=some)
    def settle(self, ending, number):
        held = self.broker.leased(self.owner, number) if number else []
        follow = tuple(self.new("b", 3, 2))
        outcome = {
            "done": lambda d: Outcome(d, State.SUCCEEDED),
            "dead": failed,
            "requeue": lambda d: Outcome(d, State.INTERRUPTED, requeue=d.raw),
            "follow": lambda d: Outcome(d, State.RETRYING, publish=follow),
        }[ending]
        assert self.broker.settle(self.owner, [outcome(delivery) for delivery in held]).fenced == 0
        self.expected -= len(held) if ending == "done" else 0

    @rule()
    def replay(self):
        for dead in self.broker.dead_letters(1):
            assert self.broker.replay(dead.id)

    @rule(seconds=some, limit=st.integers(1, 3))
    def promote(self, seconds, limit):
        self.clock.pass_seconds(seconds)
        self.broker.promote(["a", "b"], limit)

    @rule()
    def rescue(self):
        self.broker.condemn(self.owner)
        held = self.broker.leased(self.owner)
        self.broker.settle_condemned(self.owner, [Outcome(d, State.INTERRUPTED, requeue=d.raw) for d in held])
        assert self.broker.unregister(self.owner)
        self.owner = owner_of(self.broker)

    @invariant()
    def each_message_is_in_one_place(self):
        assert places(self.broker, ["a", "b"]) == self.expected
        self.broker.file.read(consistent)


ALWAYS_ZERO = (
    "SELECT count(*) - count(DISTINCT id) FROM (SELECT id FROM ready UNION ALL SELECT message FROM leases)",
    "SELECT count(*) FROM messages WHERE id NOT IN (SELECT id FROM ready UNION ALL SELECT message FROM leases)",
    "SELECT count(*) FROM ready WHERE id NOT IN (SELECT id FROM messages)",
    "SELECT count(*) FROM leases WHERE message NOT IN (SELECT id FROM messages)",
    "SELECT count(*) FROM leases WHERE owner NOT IN (SELECT id FROM owners)",
    "SELECT (SELECT coalesce(sum(ready), 0) FROM queues) - (SELECT count(*) FROM ready)",
    "SELECT (SELECT coalesce(sum(scheduled), 0) FROM queues) - (SELECT count(*) FROM scheduled)",
)


def consistent(connection):
    """The payloads are those of ready and leases, and the counts are those of the rows."""
    for question in ALWAYS_ZERO:
        assert connection.execute(question).fetchone() == (0,), question


def test_in_every_order_of_calls_each_message_is_in_one_place(path):
    OnePlace.path = path
    run_state_machine_as_test(
        OnePlace,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
