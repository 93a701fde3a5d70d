"""Calls to the store whose answers are lost, one by one, and outcomes that are too large for the ledger."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass

import pytest

from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.engine.consumer import Consumer
from celeriac.engine.ledger import LOG_BYTES, Ledger, create_file
from celeriac.engine.outbox import Outbox, Settler
from celeriac.errors import StoreUnavailable
from celeriac.message import Delivery
from celeriac.outcome import Outcome, Result, State
from celeriac.pools.inline import InlinePool
from celeriac.settings import EngineSettings
from celeriac.telemetry.bus import Bus
from tests.conformance.kits import QUEUE, messages

OWNER = "one"


class ForgetfulBroker(SQLiteBroker):
    """Does what it is asked, and then loses the answer to the call that it is told to."""

    losing = ""

    def _lose(self, call):
        if self.losing == call:
            self.losing = ""
            raise StoreUnavailable("the answer was lost")

    def turn(self, owner, outcomes, queues, limit):
        answer = super().turn(owner, outcomes, queues, limit)
        self._lose("turn")
        return answer

    def release(self, owner, tags):
        answer = super().release(owner, tags)
        self._lose("release")
        return answer


@dataclass
class PlainJob:
    """A job without limits."""

    delivery: Delivery
    name: str = "plain"
    is_async: bool = False
    soft_limit: float = 0.0
    hard_limit: float = 0.0
    interrupted: BaseException | None = None
    permit: object = None


class Diary:
    """A runner that writes down what it runs."""

    def __init__(self):
        self.ran = []

    def gate(self, owner, broker, *, sequential):
        return None

    def prepare(self, delivery, permit=None):
        return PlainJob(delivery)

    def run(self, job):
        self.ran.append(job.delivery.raw)
        return Outcome(job.delivery, State.SUCCEEDED)


@pytest.fixture
def broker(tmp_path):
    with closing(ForgetfulBroker(tmp_path / "store.sqlite3")) as broker:
        broker.register(OWNER, [QUEUE], 60)
        broker.publish(messages("a", "b", "c"))
        yield broker


@pytest.fixture
def diary():
    return Diary()


@pytest.fixture
def consumer(broker, diary):
    settings = EngineSettings("node", queues=(QUEUE,))
    ledger, bus = Ledger(create_file(1), 1), Bus()
    outbox = Outbox(Settler(broker, None, diary), ledger, diary, bus)
    pool = InlinePool(lambda: False)
    consumer = Consumer(OWNER, settings.queues, settings, broker, diary, pool, outbox, ledger, bus)
    pool.start(consumer, lambda: None)
    yield consumer
    ledger.close()


def hold_all(broker, diary, consumer):
    consumer.inbox.extend(diary.prepare(delivery) for delivery in broker.lease(OWNER, [QUEUE], 10))


def run_until_idle(consumer):
    deadline = time.monotonic() + 10
    while consumer.run_once():
        assert time.monotonic() < deadline


def test_what_was_handed_back_by_a_call_of_unknown_fate_is_not_run_here_as_well(broker, diary, consumer):
    hold_all(broker, diary, consumer)
    broker.losing = "release"
    with pytest.raises(StoreUnavailable):
        consumer.hand_back("slow_task")
    assert broker.depth([QUEUE])[0].ready == 3
    run_until_idle(consumer)
    assert sorted(diary.ran) == [b"a", b"b", b"c"]
    assert broker.leased_count() == 0


def test_what_was_leased_by_a_call_of_unknown_fate_is_run_once(broker, diary, consumer):
    broker.losing = "turn"
    run_until_idle(consumer)
    run_until_idle(consumer)
    assert sorted(diary.ran) == [b"a", b"b", b"c"]
    assert broker.leased_count() == 0


def test_what_was_leased_by_a_call_of_unknown_fate_goes_back_at_a_stop(broker, diary, consumer):
    broker.losing = "turn"
    consumer.run_once()
    assert broker.leased_count() == 1
    consumer.stop()
    consumer.wind_up()
    assert broker.leased_count() == 0
    assert broker.depth([QUEUE])[0].ready == 3
    assert diary.ran == []


class AbsentBroker(ForgetfulBroker):
    """Says that it is away as long as it is told to."""

    away = False

    def turn(self, owner, outcomes, queues, limit):
        if self.away:
            self.was_asked.set()
            assert self.may_fail.wait(10)
            raise StoreUnavailable("away")
        return super().turn(owner, outcomes, queues, limit)


@pytest.fixture
def absent(broker):
    broker.__class__ = AbsentBroker
    broker.was_asked, broker.may_fail = threading.Event(), threading.Event()
    return broker


def finish_one(absent, diary, consumer):
    """An outcome for a store that is away."""
    (delivery,) = absent.lease(OWNER, [QUEUE], 1)
    consumer.run(diary.prepare(delivery), 0)
    absent.away = True


def test_a_stop_settles_what_another_thread_could_not(absent, diary, consumer):
    finish_one(absent, diary, consumer)

    def fail():
        with pytest.raises(StoreUnavailable):
            consumer.flush()

    other = threading.Thread(target=fail)
    other.start()
    assert absent.was_asked.wait(10)
    consumer.stop()
    stop = threading.Thread(target=consumer.wind_up)
    stop.start()
    absent.may_fail.set()
    other.join(10)
    absent.away = False
    stop.join(10)
    assert not stop.is_alive()
    assert absent.leased_count() == 0
    assert not consumer.gave_up


def test_a_stop_of_the_node_gives_a_store_that_stays_away_up_and_the_end_of_a_slot_does_not(absent, diary, consumer):
    finish_one(absent, diary, consumer)
    absent.may_fail.set()
    consumer.stop()
    stop = threading.Thread(target=consumer.wind_up)
    stop.start()
    stop.join(0.5)
    assert stop.is_alive()
    consumer.stop(patience=0.1)
    stop.join(10)
    assert not stop.is_alive()
    assert consumer.gave_up
    absent.away = False
    assert absent.leased_count() == 1


def test_an_outcome_too_large_for_the_ledger_is_not_taken_for_a_body_that_never_started():
    ledger = Ledger(create_file(1), 1)
    delivery = Delivery(7, QUEUE, b"raw")
    ledger.start(0, 7, time.monotonic(), 0.0, 0.0)
    kept = ledger.finish(0, Outcome(delivery, State.SUCCEEDED, (Result("id", "SUCCESS", b"x" * LOG_BYTES),)))
    assert not kept
    assert ledger.running() == []
    assert ledger.finished() == {}
    assert ledger.unkept() == {7}
    page = ledger.turn_page()
    ledger.clear_page(page)
    assert ledger.unkept() == set()
    ledger.close()
