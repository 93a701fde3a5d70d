"""What every broker must do with time: messages for later, and waiting for messages."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from celeriac.outcome import Outcome, State
from tests.conformance.kits import (
    QUEUE,
    failed,
    messages,
    owner_of,
    raws,
)
from tests.helpers import wait_until

# -- schedule ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("promotes")
def test_a_message_for_later_cannot_be_leased_until_it_is_promoted(broker, owner):
    due = time.time() + 0.4
    broker.publish(messages("later", due=due))
    assert broker.lease(owner, [QUEUE], 1) == []
    assert (broker.depth([QUEUE])[0].ready, broker.depth([QUEUE])[0].scheduled) == (0, 1)
    moved, wait = broker.promote([QUEUE])
    assert moved == 0
    assert 0 < wait <= 0.4
    wait_until(lambda: broker.promote([QUEUE])[0] == 1)
    assert time.time() >= due - 0.002
    assert raws(broker.lease(owner, [QUEUE], 1)) == [b"later"]
    assert broker.promote([QUEUE]) == (0, None)


def test_a_message_that_was_due_in_the_past_is_sent_at_once(broker, owner):
    broker.publish(messages("late", due=time.time() - 100))
    assert raws(broker.lease(owner, [QUEUE], 1)) == [b"late"]


@pytest.mark.needs("promotes")
def test_messages_are_promoted_oldest_due_first_to_the_tail(broker, owner):
    now = time.time()
    broker.publish(messages("second", due=now + 0.1) + messages("first", due=now + 0.05) + messages("waiting"))
    moved = 0
    while moved < 2:
        moved += wait_until(lambda: broker.promote([QUEUE], limit=1)[0])
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"waiting", b"first", b"second"]


@pytest.mark.needs("promotes")
def test_a_promoted_message_has_the_priority_that_it_was_sent_with(broker, owner):
    broker.publish(messages("ready", priority=3) + messages("late", priority=0, due=time.time() + 0.5))
    wait_until(lambda: broker.promote([QUEUE])[0] == 1)
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"late", b"ready"]


@pytest.mark.needs("promotes")
def test_promotion_knows_the_queues_that_it_was_asked_for(broker):
    owner_of(broker, ["x", "y"])
    broker.publish(messages("x", queue="x", due=time.time() + 100) + messages("y", queue="y", due=time.time() + 50))
    assert broker.promote([QUEUE]) == (0, None)
    assert broker.promote(["x", "y"])[1] == pytest.approx(50, abs=2)
    assert broker.promote(["x"])[1] == pytest.approx(100, abs=2)


@pytest.mark.needs("promotes")
def test_several_nodes_promote_each_message_once(kit):
    broker = kit.broker()
    owner = owner_of(broker)
    due = time.time() + 1.0
    broker.publish(messages(*(str(n) for n in range(300)), due=due))
    wait_until(lambda: time.time() > due + 0.01)

    def promote_all(node):
        moved = 0
        while node.depth([QUEUE])[0].scheduled:
            moved += node.promote([QUEUE], limit=7)[0]
        return moved

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(promote_all, [kit.broker() for _ in range(3)])) == 300
    assert len(set(raws(broker.lease(owner, [QUEUE], 1000)))) == 300


# -- waiting -----------------------------------------------------------------------------------------------------------


def woken_after(broker, act, queues=(QUEUE,), timeout=10.0):
    """Wait in a thread, act, and return what the wait said and the seconds from the act to the answer."""
    begun = threading.Event()

    def wait():
        begun.set()
        return broker.wait(list(queues), timeout), time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(wait)
        begun.wait(10)
        time.sleep(0.05)  # not to synchronise: the wait should be asleep, but the test holds either way
        acted = time.monotonic()
        act()
        said, at = answer.result(timeout + 10)
    return said, at - acted


def test_waiting_ends_at_once_when_there_is_something(broker):
    broker.publish(messages("a", priority=9))
    began = time.monotonic()
    assert broker.wait(["empty", QUEUE], 10)
    assert time.monotonic() - began < 5


def test_waiting_ends_when_the_time_is_over(broker):
    began = time.monotonic()
    assert not broker.wait([QUEUE], 0.2)
    assert 0.19 <= time.monotonic() - began < 5


def test_waiting_does_not_take_anything(broker, owner):
    broker.publish(messages("a", "b"))
    for _ in range(3):
        assert broker.wait([QUEUE], 1)
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"a", b"b"]


def test_a_published_message_wakes_within_milliseconds(kit):
    waiter, sender = kit.broker(), kit.broker()
    latencies = []
    for n in range(5):
        queue = f"q{n}"
        said, seconds = woken_after(waiter, partial(sender.publish, messages("a", queue=queue)), [queue])
        assert said
        latencies.append(seconds)
    assert min(latencies) < 0.05


def test_a_message_in_another_queue_does_not_end_the_wait(kit):
    waiter, sender = kit.broker(), kit.broker()
    said, _ = woken_after(waiter, lambda: sender.publish(messages("a", queue="other")), timeout=0.3)
    assert not said


@pytest.mark.parametrize("way", ["release", "requeue", "follow-up", "replay", "promote"])
def test_whatever_brings_a_message_into_a_queue_ends_the_wait(kit, way):
    waiter, broker = kit.broker(), kit.broker()
    owner = owner_of(broker)
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    if way == "replay":
        broker.settle(owner, [failed(delivery)])
    due = time.time() + 0.5
    if way == "promote":
        broker.publish(messages("b", due=due))
        wait_until(lambda: time.time() > due + 0.005)
    acts = {
        "release": lambda: broker.release(owner, [delivery.tag]),
        "requeue": lambda: broker.settle(owner, [Outcome(delivery, State.INTERRUPTED, requeue=b"a")]),
        "follow-up": lambda: broker.settle(owner, [Outcome(delivery, State.SUCCEEDED, publish=tuple(messages("b")))]),
        "replay": lambda: broker.replay(broker.dead_letters()[0].id),
        "promote": lambda: broker.promote([QUEUE]),
    }
    said, seconds = woken_after(waiter, acts[way])
    assert said
    assert seconds < 5
