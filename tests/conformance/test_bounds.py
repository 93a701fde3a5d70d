"""Queues that may not grow past a bound: the sentences of :meth:`celeriac.broker.Broker.publish_within`, on every broker."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.errors import QueueFull
from celeriac.message import Bound, Message
from celeriac.outcome import Outcome, State
from tests.conformance.kits import QUEUE, messages, raws

pytestmark = pytest.mark.needs("counts_bounds")

THREE = {QUEUE: Bound(3)}
NEWEST_THREE = {QUEUE: Bound(3, drop_oldest=True)}


def length(broker, queue=QUEUE):
    (depth,) = broker.depth([queue])
    return depth.ready + depth.scheduled


def test_a_queue_takes_messages_up_to_its_bound_and_refuses_the_next(broker, owner):
    broker.publish_within(messages("a", "b"), THREE)
    broker.publish_within(messages("c"), THREE)

    with pytest.raises(
        QueueFull, match=r"Queue images has no room for another message: it holds 3 and takes at most 3"
    ) as caught:
        broker.publish_within(messages("d"), THREE)

    assert (caught.value.queue, caught.value.max_length, caught.value.length) == (QUEUE, 3, 3)
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"a", b"b", b"c"]


def test_of_a_batch_all_are_sent_or_none_whatever_their_queues(broker):
    bounds = {**THREE, "other": Bound(10)}
    broker.publish_within(messages("a", "b"), bounds)

    with pytest.raises(QueueFull):
        broker.publish_within(
            messages("x", queue="other") + messages("c", "d") + messages("y", queue="unbounded"), bounds
        )

    assert (length(broker), length(broker, "other"), length(broker, "unbounded")) == (2, 0, 0)


def test_all_priorities_and_the_schedule_count(broker, owner):
    broker.publish_within([Message(QUEUE, b"a", 0), Message(QUEUE, b"b", 9)], THREE)
    broker.publish_within([Message(QUEUE, b"c", 0, time.time() + 3600)], THREE)

    with pytest.raises(QueueFull):
        broker.publish_within(messages("d", priority=3), THREE)

    assert broker.depth([QUEUE])[0].scheduled == 1


def test_what_is_leased_makes_room_and_what_comes_back_is_never_refused(broker, owner):
    broker.publish_within(messages("a", "b", "c"), THREE)
    (first, _) = broker.lease(owner, [QUEUE], 2)
    broker.publish_within(messages("d", "e"), THREE)

    broker.release(owner, [first.tag])

    assert length(broker) == 4
    with pytest.raises(QueueFull):
        broker.publish_within(messages("f"), THREE)


def test_what_follows_an_outcome_is_never_refused(broker, owner):
    broker.publish_within(messages("a", "b", "c"), THREE)
    (first,) = broker.lease(owner, [QUEUE], 1)
    broker.publish_within(messages("d"), THREE)

    retry = Message(QUEUE, b"a again")
    broker.settle(owner, [Outcome(first, State.RETRYING, publish=(retry,))])

    assert length(broker) == 4


def test_the_oldest_make_room_and_are_kept_among_the_dead(broker, owner):
    envelope = b'{"body": "", "headers": {"task": "shop.pay", "id": "t-1", "argsrepr": "{\\"id\\": \\"x\\"}"}, "properties": {}}'
    broker.publish_within(messages(envelope, "b", "c"), NEWEST_THREE)
    broker.publish_within(messages("d", "e"), NEWEST_THREE)

    dead = broker.dead_letters()[::-1]
    assert [letter.raw for letter in dead] == [envelope, b"b"]
    assert (dead[0].reason, dead[0].task, dead[0].task_id, dead[0].queue) == ("overflow", "shop.pay", "t-1", QUEUE)
    assert "at most 3" in dead[0].error
    assert time.time() - dead[0].at < 60
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"c", b"d", b"e"]


def test_what_made_room_can_be_replayed(broker, owner):
    broker.publish_within(messages("a", "b", "c"), NEWEST_THREE)
    broker.publish_within(messages("d"), NEWEST_THREE)

    assert broker.replay(broker.dead_letters()[0].id)

    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"b", b"c", b"d", b"a"]


def test_the_lowest_priority_makes_room_first(broker, owner):
    broker.publish_within(messages("urgent") + messages("low1", "low2", priority=9), NEWEST_THREE)
    broker.publish_within(messages("new1", "new2", priority=3), NEWEST_THREE)

    assert [letter.raw for letter in broker.dead_letters()] == [b"low2", b"low1"]
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"urgent", b"new1", b"new2"]


def test_what_is_scheduled_makes_no_room(broker):
    broker.publish_within(messages("a", "b", "c", due=time.time() + 3600), NEWEST_THREE)

    # Redis schedules only where somebody serves the queue; there they are ready, and can make room.
    if broker.depth([QUEUE])[0].scheduled:
        with pytest.raises(QueueFull):
            broker.publish_within(messages("d"), NEWEST_THREE)
        assert broker.dead_count() == 0


def test_a_batch_that_can_never_fit_says_so(broker):
    with pytest.raises(QueueFull, match="never have room"):
        broker.publish_within(messages("a", "b", "c", "d"), THREE)
    assert length(broker) == 0


def test_of_many_who_fill_the_last_places_as_many_succeed_as_there_are_places(kit, broker):
    bounds = {QUEUE: Bound(40)}

    def fill(_):
        mine = kit.new_broker(None)
        sent = 0
        for n in range(10):
            try:
                mine.publish_within(messages(f"{n}"), bounds)
                sent += 1
            except QueueFull:
                pass
        mine.close()
        return sent

    with ThreadPoolExecutor(10) as pool:
        sent = sum(pool.map(fill, range(10)))

    assert sent == length(broker) == 40
