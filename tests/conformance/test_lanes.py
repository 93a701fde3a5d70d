"""Messages that wait beside their queues: the sentences of :meth:`celeriac.broker.Broker.unpark`, on every broker that has lanes."""

from __future__ import annotations

import pytest

from celeriac.broker import Lane
from celeriac.errors import OwnerLost, QueueFull
from celeriac.message import Bound, Message
from celeriac.outcome import Outcome, State
from tests.conformance.kits import QUEUE, failed, messages, owner_of, raws

pytestmark = pytest.mark.needs("has_lanes")


def park(broker, owner, lane, *texts, priority=0, queue=QUEUE):
    """Put messages into a lane, as settling does."""
    broker.publish(messages(*texts, queue=queue))
    held = broker.lease(owner, [queue], len(texts))
    outcomes = [Outcome(each, State.SNOOZED, publish=(Message(queue, each.raw, priority, lane=lane),)) for each in held]
    assert broker.settle(owner, outcomes).fenced == 0


def lanes(broker, *queues):
    return {(lane.queue, lane.name): lane.count for lane in broker.lanes(queues or [QUEUE])}


def test_what_is_parked_is_counted_and_not_leased(broker, owner):
    park(broker, owner, "a", "1", "2")
    park(broker, owner, "b", "3")

    assert lanes(broker) == {(QUEUE, "a"): 2, (QUEUE, "b"): 1}
    depth = broker.depth([QUEUE])[0]
    assert (depth.ready, depth.scheduled, depth.parked) == (0, 0, 3)
    assert broker.lease(owner, [QUEUE], 10) == []
    assert broker.leased_count() == 0


def test_lanes_are_emptied_in_the_order_of_priority_and_age(broker, owner):
    park(broker, owner, "a", "1", "2", priority=3)
    park(broker, owner, "a", "urgent")
    park(broker, owner, "b", "x", "y")

    first, second, none = broker.unpark(owner, [Lane(QUEUE, "a", 2), Lane(QUEUE, "b", 5), Lane(QUEUE, "c", 5)])

    assert raws(first) == [b"urgent", b"1"]
    assert raws(second) == [b"x", b"y"]
    assert none == []
    assert lanes(broker) == {(QUEUE, "a"): 1}
    assert broker.depth([QUEUE])[0].parked == 1
    assert sorted(raws(broker.leased(owner))) == [b"1", b"urgent", b"x", b"y"]
    assert len({each.tag for each in first + second}) == 4


def test_what_was_unparked_belongs_to_its_queue_again(broker, owner):
    park(broker, owner, "a", "1", "2", "3", "4")
    ((done, back, dead, again),) = broker.unpark(owner, [Lane(QUEUE, "a", 4)])
    assert done.queue == QUEUE

    broker.release(owner, [back.tag])
    broker.settle(
        owner,
        [Outcome(done, State.SUCCEEDED), failed(dead), Outcome(again, State.INTERRUPTED, requeue=again.raw)],
    )

    assert lanes(broker) == {}
    (letter,) = broker.dead_letters()
    assert letter.queue == QUEUE
    assert broker.replay(letter.id)
    assert sorted(raws(broker.lease(owner, [QUEUE], 10))) == [b"2", b"3", b"4"]


def test_what_an_owner_unparked_is_rescued_from_it(broker):
    lost = owner_of(broker)
    park(broker, lost, "a", "1", priority=9)
    ((delivery,),) = broker.unpark(lost, [Lane(QUEUE, "a", 1)])

    broker.condemn(lost)
    broker.settle_condemned(lost, [Outcome(delivery, State.INTERRUPTED, requeue=delivery.raw)])

    assert raws(broker.lease(owner_of(broker), [QUEUE], 10)) == [b"1"]
    with pytest.raises(OwnerLost):
        broker.unpark(lost, [Lane(QUEUE, "a", 1)])


def test_lanes_of_one_queue_are_not_those_of_another(broker, owner):
    park(broker, owner, "a", "1", queue="x")
    park(broker, owner, "a", "2", "3", queue="x y")

    assert lanes(broker, "x") == {("x", "a"): 1}
    assert lanes(broker, "x y", "z") == {("x y", "a"): 2}
    assert [depth.parked for depth in broker.depth(["x", "x y"])] == [1, 2]


@pytest.mark.parametrize("name", ["a b", "ü⚙", 'x"y', "a:b", "{n}", "a\x06\x163", "%s", "-"])
def test_any_name_of_a_lane_works(broker, owner, name):
    park(broker, owner, name, "1")
    assert lanes(broker) == {(QUEUE, name): 1}
    assert raws(broker.unpark(owner, [Lane(QUEUE, name, 1)])[0]) == [b"1"]


def test_of_many_lanes_some_are_shown_and_others_each_time(broker, owner):
    names = {f"{n * 2**26:08x}" for n in range(60)}
    for name in names:
        park(broker, owner, name, "m")

    seen = [frozenset(lane.name for lane in broker.lanes([QUEUE], 5)) for _ in range(60)]

    assert {len(each) for each in seen} == {5}
    assert len(frozenset().union(*seen)) > 30
    assert {lane.name for lane in broker.lanes([QUEUE], 100)} == names


def test_purging_a_queue_empties_its_lanes(broker, owner):
    park(broker, owner, "a", "1", "2")
    park(broker, owner, "b", "3", priority=9)
    park(broker, owner, "b", "4", queue="other")
    broker.publish(messages("5"))

    assert broker.purge(QUEUE) == 4

    assert broker.lanes([QUEUE]) == []
    assert broker.depth([QUEUE])[0].parked == 0
    assert lanes(broker, "other") == {("other", "b"): 1}
    assert broker.unpark(owner, [Lane(QUEUE, "a", 5), Lane(QUEUE, "b", 5)]) == [[], []]


def test_what_is_parked_counts_for_the_queues_bound(broker, owner):
    park(broker, owner, "a", "1", "2")
    with pytest.raises(QueueFull):
        broker.publish_within(messages("3", "4"), {QUEUE: Bound(3)})
    broker.publish_within(messages("3"), {QUEUE: Bound(3)})


def test_an_owner_is_alive_until_it_is_condemned_or_goes(broker, owner):
    condemned, gone = owner_of(broker), owner_of(broker)
    assert broker.alive([owner, condemned, gone, "nobody"]) == {owner, condemned, gone}

    broker.condemn(condemned)
    broker.unregister(gone)

    assert broker.alive([owner, condemned, gone]) == {owner}
    assert broker.alive([]) == set()


def test_looking_and_taking_cost_one_round_trip_each(broker, owner):
    park(broker, owner, "a", "1")
    park(broker, owner, "b", "2")
    before = broker.round_trips
    broker.lanes([QUEUE, "other"])
    broker.unpark(owner, [Lane(QUEUE, "a", 1), Lane(QUEUE, "b", 1)])
    broker.alive([owner])
    assert broker.round_trips - before == 3
