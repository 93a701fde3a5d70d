"""What every broker must do: the sentences of :mod:`celeriac.broker`, one test each."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from celeriac.errors import OwnerLost
from celeriac.message import Delivery, Message
from celeriac.outcome import DeadLetter, Outcome, State
from tests.conformance.kits import (
    QUEUE,
    TTL,
    done,
    failed,
    kill,
    messages,
    owner_of,
    part,
    places,
    raws,
    record,
    tags,
)
from tests.helpers import wait_until

# -- sending and order -------------------------------------------------------------------------------------------------


def test_messages_are_leased_in_the_order_in_which_they_were_sent(broker, owner):
    broker.publish(messages("a", "b"))
    broker.publish(messages("c"))
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"a", b"b", b"c"]


def test_a_delivery_names_the_queue_without_any_suffix(broker, owner):
    broker.publish(messages("low", priority=9))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert delivery.queue == QUEUE


def test_no_more_is_leased_than_the_limit(broker, owner):
    broker.publish(messages("a", "b", "c"))
    assert raws(broker.lease(owner, [QUEUE], 2)) == [b"a", b"b"]
    assert raws(broker.lease(owner, [QUEUE], 2)) == [b"c"]


@pytest.mark.needs("zero_first")
def test_priority_zero_comes_first_and_nine_last(broker, owner):
    for priority in (9, 3, 0, 6):
        broker.publish(messages(str(priority), priority=priority))
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"0", b"3", b"6", b"9"]


@pytest.mark.needs("zero_first")
def test_priorities_between_two_steps_count_as_the_lower_number(broker, owner):
    for priority in (5, 4, 3, 2, 1):
        broker.publish(messages(str(priority), priority=priority))
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"2", b"1", b"5", b"4", b"3"]


@pytest.mark.needs("zero_first")
def test_priority_goes_before_the_order_of_queues(broker, owner):
    broker.publish(messages("x3", queue="x", priority=3) + messages("y0", queue="y") + messages("x0", queue="x"))
    assert raws(broker.lease(owner, ["x", "y"], 10)) == [b"x0", b"y0", b"x3"]


def test_within_a_priority_queues_are_emptied_in_the_order_given(broker, owner):
    broker.publish(messages("x1", "x2", queue="x") + messages("y1", "y2", queue="y"))
    assert raws(broker.lease(owner, ["y", "x"], 3)) == [b"y1", b"y2", b"x1"]


def test_a_queue_that_was_not_asked_for_is_left_alone(broker, owner):
    broker.publish(messages("other", queue="other"))
    assert broker.lease(owner, [QUEUE], 10) == []
    assert broker.depth(["other"])[0].ready == 1


def test_publishing_nothing_does_nothing(broker):
    broker.publish([])
    assert broker.depth([QUEUE])[0].ready == 0


def test_one_publish_reaches_several_queues_and_priorities(broker, owner):
    broker.publish([Message("x", b"1", 3), Message("y", b"2"), Message("x", b"3")])
    assert [depth.ready for depth in broker.depth(["x", "y"])] == [2, 1]


@pytest.mark.parametrize("raw", [b"", b"\x00", b"a\x00b", b"\xff\xfe\x80", bytes(range(256)), b"[] {} \r\n$3", b"7:x"])
def test_bytes_come_back_as_they_were(broker, owner, raw):
    broker.publish(messages(raw))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert delivery.raw == raw
    assert broker.leased(owner) == [delivery]


@pytest.mark.needs("zero_first")
@pytest.mark.parametrize(
    "queue", ["a b", "a:b", "a'b\"c", "ünïcode-⚙", "{braces}", "%s", "a\nb", "*", "a\x06\x163x", "-", "7"]
)
def test_any_name_of_a_queue_works(broker, queue):
    owner = owner_of(broker, [queue])
    broker.publish(messages("low", queue=queue, priority=9) + messages("high", queue=queue))
    deliveries = broker.lease(owner, [queue], 10)
    assert [(d.queue, d.raw) for d in deliveries] == [(queue, b"high"), (queue, b"low")]
    assert broker.release(owner, tags(deliveries)) == 2
    assert broker.depth([queue])[0].ready == 2
    assert broker.purge(queue) == 2


def test_a_message_of_ten_megabytes_passes(broker, owner):
    raw = b"\x00\xff" * 5_000_000
    broker.publish(messages(raw))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert delivery.raw == raw
    broker.settle(owner, done(delivery))
    assert places(broker) == 0


def test_a_thousand_messages_go_in_one_publish_one_lease_and_one_settle(broker, owner):
    wanted = [b"%d" % n for n in range(1000)]
    before = broker.round_trips
    broker.publish(messages(*wanted))
    deliveries = broker.lease(owner, [QUEUE], 1000)
    assert raws(deliveries) == wanted
    assert broker.settle(owner, done(*deliveries)).fenced == 0
    assert broker.round_trips - before <= 3 * broker.call_round_trips
    assert places(broker) == 0


def test_settling_and_leasing_is_one_round_trip(broker, owner):
    broker.publish(messages(*(str(n) for n in range(20))))
    held = broker.lease(owner, [QUEUE], 10)
    before = broker.round_trips
    outcomes = [
        Outcome(delivery, State.SUCCEEDED, results=(record(f"t{delivery.tag}"),), publish=tuple(messages("next")))
        for delivery in held
    ]
    settlement, following = broker.turn(owner, outcomes, [QUEUE], 10)
    assert broker.round_trips - before <= broker.call_round_trips
    assert (settlement.fenced, len(following)) == (0, 10)


# -- settling ----------------------------------------------------------------------------------------------------------


def test_a_settled_message_is_gone(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert broker.leased_count() == 1
    assert broker.settle(owner, done(delivery)).fenced == 0
    assert places(broker) == 0


def test_settling_twice_is_refused_and_writes_nothing(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.settle(owner, done(delivery))
    again = Outcome(delivery, State.SUCCEEDED, publish=tuple(messages("follow-up")))
    assert broker.settle(owner, [again]).fenced == 1
    assert places(broker) == 0


def test_of_two_outcomes_of_one_delivery_in_a_batch_one_is_written(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    outcome = Outcome(delivery, State.SUCCEEDED, publish=tuple(messages("follow-up")))
    assert broker.settle(owner, [outcome, outcome]).fenced == 1
    assert broker.depth([QUEUE])[0].ready == 1


def test_nobody_can_settle_what_another_owner_holds(broker, owner):
    broker.publish(messages("a"))
    other = owner_of(broker)
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert broker.settle(other, done(delivery)).fenced == 1
    assert broker.leased(owner) == [delivery]


def test_a_refused_outcome_does_not_hinder_the_others(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    stranger = Outcome(Delivery(10_000, QUEUE, b"?"), State.SUCCEEDED, publish=tuple(messages("never")))
    assert broker.settle(owner, [stranger, *done(delivery)]).fenced == 1
    assert places(broker) == 0


@pytest.mark.needs("zero_first")
def test_follow_ups_are_sent_with_the_acknowledgement(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    follow_ups = (*messages("low", priority=9), *messages("high"), *messages("far", queue="other"))
    _, leased = broker.turn(owner, [Outcome(delivery, State.SUCCEEDED, publish=follow_ups)], [QUEUE], 10)
    assert raws(leased) == [b"high", b"low"]
    assert broker.depth(["other"])[0].ready == 1


def test_a_retry_goes_into_the_schedule(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    retry = tuple(messages("again", due=time.time() + 3600))
    broker.settle(owner, [Outcome(delivery, State.RETRYING, publish=retry)])
    (depth,) = broker.depth([QUEUE])
    assert (depth.ready, depth.scheduled, broker.leased_count()) == (0, 1, 0)


@pytest.mark.needs("keeps_place")
@pytest.mark.parametrize("raw", [b"b", b"edited", b"\x00\xff"])
def test_a_requeued_message_is_the_next_of_its_queue_and_priority(broker, owner, raw):
    broker.publish(messages("a", "b", "c", priority=3))
    _, delivery, _ = broker.lease(owner, [QUEUE], 3)
    broker.publish(messages("later", priority=3) + messages("urgent"))
    broker.settle(owner, [Outcome(delivery, State.INTERRUPTED, requeue=raw)])
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"urgent", raw, b"later"]


@pytest.mark.needs("writes_results")
def test_results_are_written_with_the_settle(kit):
    backend = kit.backend()
    broker = kit.broker(backend)
    owner = owner_of(broker)
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.settle(owner, [Outcome(delivery, State.SUCCEEDED, results=(record("t1"), record("t2", "FAILURE")))])
    assert broker.shares_store(backend)
    assert backend.fetch(["t1", "t2"]) == [record("t1").payload, record("t2", "FAILURE").payload]


@pytest.mark.needs("writes_results")
def test_results_of_a_refused_outcome_are_not_written(kit):
    backend = kit.backend()
    broker = kit.broker(backend)
    owner = owner_of(broker)
    stranger = Outcome(Delivery(1, QUEUE, b"?"), State.SUCCEEDED, results=(record("t1"),))
    assert broker.settle(owner, [stranger]).fenced == 1
    assert backend.fetch(["t1"]) == [None]


@pytest.mark.needs("writes_results")
def test_a_guarded_outcome_keeps_the_success_that_is_stored(kit):
    backend = kit.backend()
    broker = kit.broker(backend)
    owner = owner_of(broker)
    backend.store([record("t1", result="first")])
    broker.publish(messages("a", "b"))
    first, second = broker.lease(owner, [QUEUE], 2)
    late = record("t1", "FAILURE")
    broker.settle(owner, [Outcome(first, State.FAILED, results=(late,), guarded=True)])
    assert backend.fetch(["t1"]) == [record("t1", result="first").payload]
    broker.settle(owner, [Outcome(second, State.FAILED, results=(late,))])
    assert backend.fetch(["t1"]) == [late.payload]


def test_a_store_that_is_not_there_is_not_shared(broker):
    assert not broker.shares_store(None)


# -- chords in a settle ------------------------------------------------------------------------------------------------


def chord(kit, size):
    """A started chord: its broker, its backend, an owner, and a delivery for each member."""
    backend = kit.backend()
    broker = kit.broker(backend)
    owner = owner_of(broker)
    backend.start_chord("g", size)
    broker.publish(messages(*(f"member {n}" for n in range(size))))
    return broker, backend, owner, broker.lease(owner, [QUEUE], size)


def counted(delivery, *parts, task_id="t"):
    return Outcome(delivery, State.SUCCEEDED, results=(record(task_id),), chord_parts=parts)


@pytest.mark.needs("writes_results")
def test_the_last_member_of_a_chord_stays_leased_and_is_reported(kit):
    broker, backend, owner, (first, last) = chord(kit, 2)
    assert broker.settle(owner, [counted(first, part("g", 0))]).ready == ()
    outcome = counted(last, part("g", 1))._replace(publish=tuple(messages("too early")))
    (ready,) = broker.settle(owner, [outcome]).ready
    assert ready.outcome == outcome
    assert (ready.part.group_id, ready.part.callback) == ("g", b"callback")
    assert broker.leased(owner) == [last]
    assert broker.depth([QUEUE])[0].ready == 0
    assert backend.chord_parts("g") == [b"payload 0", b"payload 1"]
    assert backend.fetch(["t"]) == [record("t").payload]


@pytest.mark.needs("writes_results")
def test_settling_the_last_member_again_sends_the_callback_once(kit):
    broker, backend, owner, (first, last) = chord(kit, 2)
    broker.settle(owner, [counted(first, part("g", 0)), counted(last, part("g", 1))])
    final = Outcome(last, State.SUCCEEDED, publish=tuple(messages("callback")), chords_done=("g",))
    assert broker.settle(owner, [final]).fenced == 0
    assert broker.settle(owner, [final]).fenced == 1
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"callback"]
    assert backend.chord_parts("g") == []


@pytest.mark.needs("writes_results")
def test_a_duplicate_of_a_member_does_not_fire_a_finished_chord_again(kit):
    broker, _, owner, (first, last) = chord(kit, 2)
    broker.settle(owner, [counted(first, part("g", 0)), counted(last, part("g", 1))])
    broker.settle(owner, [Outcome(last, State.SUCCEEDED, chords_done=("g",))])
    broker.publish(messages("duplicate"))
    (duplicate,) = broker.lease(owner, [QUEUE], 1)
    assert broker.settle(owner, [counted(duplicate, part("g", 1))]).ready == ()
    assert places(broker) == 0


@pytest.mark.needs("writes_results")
def test_a_duplicate_of_a_member_is_not_counted(kit):
    broker, _, owner, (first, second, third) = chord(kit, 3)
    for delivery in (first, second):
        assert broker.settle(owner, [counted(delivery, part("g", 0))]).ready == ()
    assert broker.settle(owner, [counted(third, part("g", 1))]).ready == ()


@pytest.mark.needs("writes_results")
def test_one_outcome_may_complete_two_chords(kit):
    broker, backend, owner, (delivery,) = chord(kit, 1)
    backend.start_chord("h", 1)
    settlement = broker.settle(owner, [counted(delivery, part("g", 0), part("h", 0))])
    assert [ready.part.group_id for ready in settlement.ready] == ["g", "h"]


@pytest.mark.needs("writes_results")
def test_a_refused_outcome_counts_nothing(kit):
    broker, backend, _, (delivery,) = chord(kit, 1)
    other = owner_of(broker)
    assert broker.settle(other, [counted(delivery, part("g", 0))]) == (1, ())
    assert backend.chord_parts("g") == []


# -- releasing ---------------------------------------------------------------------------------------------------------


def test_released_messages_are_the_next_in_their_old_order(broker, owner):
    broker.publish(messages("a", "b", "c"))
    held = broker.lease(owner, [QUEUE], 3)
    broker.publish(messages("d"))
    assert broker.release(owner, [held[2].tag, held[1].tag]) == 2
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"b", b"c", b"d"]


@pytest.mark.needs("zero_first")
def test_released_messages_keep_queue_and_priority(broker, owner):
    broker.publish(messages("x", queue="x", priority=6) + messages("y", queue="y"))
    held = broker.lease(owner, ["x", "y"], 10)
    broker.publish(messages("urgent", queue="x"))
    broker.release(owner, tags(held))
    assert raws(broker.lease(owner, ["x", "y"], 10)) == [b"urgent", b"y", b"x"]


def test_releasing_again_does_no_harm(broker, owner):
    broker.publish(messages("a"))
    held = broker.lease(owner, [QUEUE], 1)
    assert broker.release(owner, tags(held)) == 1
    assert broker.release(owner, [*tags(held), 99]) == 0
    assert broker.release(owner, []) == 0
    assert places(broker) == 1


def test_a_tag_is_never_used_twice(broker, owner):
    broker.publish(messages("a", "b"))
    seen = set()
    for _ in range(5):
        held = broker.lease(owner, [QUEUE], 2)
        assert not seen & set(tags(held))
        seen |= set(tags(held))
        broker.release(owner, tags(held))


def test_an_outcome_of_a_released_lease_is_refused_even_if_the_owner_has_the_message_again(broker, owner):
    broker.publish(messages("a"))
    (old,) = broker.lease(owner, [QUEUE], 1)
    broker.release(owner, [old.tag])
    (new,) = broker.lease(owner, [QUEUE], 1)
    assert broker.settle(owner, done(old)).fenced == 1
    assert broker.settle(owner, done(new)).fenced == 0


# -- owners ------------------------------------------------------------------------------------------------------------


def test_an_unknown_owner_can_neither_lease_nor_settle(broker):
    broker.publish(messages("a"))
    with pytest.raises(OwnerLost):
        broker.lease("nobody", [QUEUE], 1)
    with pytest.raises(OwnerLost):
        broker.settle("nobody", done(Delivery(1, QUEUE, b"a")))
    assert broker.depth([QUEUE])[0].ready == 1


@pytest.mark.needs("keeps_leases")
def test_a_condemned_owner_can_neither_lease_nor_settle_nor_release(broker, owner):
    broker.publish(messages("a", "b"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.condemn(owner)
    with pytest.raises(OwnerLost):
        broker.turn(owner, done(delivery), [QUEUE], 1)
    assert broker.release(owner, [delivery.tag]) == 0
    assert broker.leased(owner) == [delivery]
    assert broker.depth([QUEUE])[0].ready == 1


def test_beating_tells_which_owners_are_lost(broker):
    alive, condemned = owner_of(broker), owner_of(broker)
    broker.condemn(condemned)
    assert sorted(broker.beat([alive, condemned, "nobody"], [QUEUE], TTL)) == sorted([condemned, "nobody"])
    assert broker.beat([], [QUEUE], TTL) == []


def test_beating_many_owners_is_one_round_trip(broker):
    owners = [owner_of(broker) for _ in range(20)]
    before = broker.round_trips
    assert broker.beat(owners, [QUEUE], TTL) == []
    assert broker.round_trips - before == 1


def test_an_owner_expires_when_its_time_runs_out(broker):
    stays, goes = owner_of(broker), owner_of(broker, ttl=0.05)
    assert wait_until(broker.expired) == [goes]
    assert stays not in broker.expired()


def test_beating_keeps_an_owner_from_expiring(broker):
    first, second = owner_of(broker, ttl=0.05), owner_of(broker, ttl=0.05)
    assert broker.beat([first], [QUEUE], TTL) == []
    wait_until(lambda: second in broker.expired())
    assert broker.expired() == [second]


def test_an_expired_owner_that_nobody_condemned_may_go_on(broker):
    broker.publish(messages("a"))
    owner = owner_of(broker, ttl=0.05)
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    wait_until(broker.expired)
    assert broker.beat([owner], [QUEUE], TTL) == []
    assert broker.settle(owner, done(delivery)).fenced == 0
    assert broker.expired() == []


def test_expired_owners_come_in_limited_numbers(broker):
    owners = {owner_of(broker, ttl=0.01) for _ in range(5)}
    wait_until(lambda: len(broker.expired()) == 5)
    assert len(broker.expired(limit=2)) == 2
    assert set(broker.expired()) == owners


def test_a_condemned_owner_is_left_to_its_rescuer_for_a_while(broker, owner):
    broker.publish(messages("a"))
    broker.lease(owner, [QUEUE], 1)
    broker.condemn(owner)
    assert broker.expired() == []


def test_an_owner_that_holds_leases_cannot_be_unregistered(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert not broker.unregister(owner)
    broker.settle(owner, done(delivery))
    assert broker.unregister(owner)
    with pytest.raises(OwnerLost):
        broker.lease(owner, [QUEUE], 1)


def test_unregistering_twice_does_no_harm(broker, owner):
    assert broker.unregister(owner)
    assert broker.unregister(owner)


def test_registering_again_does_no_harm(broker, owner):
    broker.publish(messages("a"))
    held = broker.lease(owner, [QUEUE], 1)
    broker.register(owner, [QUEUE], TTL)
    assert broker.leased(owner) == held


def test_condemning_somebody_unknown_fences_the_name_off_or_does_nothing(broker):
    broker.condemn("nobody")
    with pytest.raises(OwnerLost):
        broker.lease("nobody", [QUEUE], 1)


# -- rescue ------------------------------------------------------------------------------------------------------------


def test_what_an_owner_holds_is_listed_by_ascending_tag(broker, owner):
    broker.publish(messages("low", priority=9) + messages("high"))
    held = broker.lease(owner, [QUEUE], 10)
    assert broker.leased(owner) == held
    assert tags(held) == sorted(tags(held))
    assert broker.leased(owner, limit=1) == held[:1]
    assert broker.leased("nobody") == []


@pytest.mark.needs("keeps_leases")
def test_a_rescuer_settles_for_the_condemned(broker, owner):
    broker.publish(messages("a", "b", "c"))
    broker.lease(owner, [QUEUE], 3)
    broker.condemn(owner)
    back, dead, gone = broker.leased(owner)
    outcomes = [
        Outcome(back, State.INTERRUPTED, requeue=b"a, crashed once"),
        failed(dead, "poison"),
        Outcome(gone, State.REVOKED),
    ]
    assert broker.settle_condemned(owner, outcomes).fenced == 0
    assert broker.unregister(owner)
    assert raws(broker.lease(owner_of(broker), [QUEUE], 10)) == [b"a, crashed once"]
    assert broker.dead_count() == 1


@pytest.mark.needs("keeps_leases")
def test_of_two_rescuers_at_once_each_message_is_settled_by_one(kit):
    broker = kit.broker()
    owner = owner_of(broker)
    broker.publish(messages(*(str(n) for n in range(200))))
    broker.lease(owner, [QUEUE], 200)
    start = threading.Barrier(2)

    def rescue(rescuer):
        rescuer.condemn(owner)
        start.wait(10)
        fenced = 0
        while held := rescuer.leased(owner, limit=20):
            outcomes = [Outcome(d, State.INTERRUPTED, requeue=d.raw) for d in held]
            fenced += rescuer.settle_condemned(owner, outcomes).fenced - len(held)
        return -fenced

    with ThreadPoolExecutor(2) as pool:
        settled = sum(pool.map(rescue, [kit.broker(), kit.broker()]))
    assert settled == 200
    assert sorted(int(raw) for raw in raws(broker.lease(owner_of(broker), [QUEUE], 500))) == list(range(200))


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


# -- looking -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("promotes")
def test_depth_counts_what_lies_where(broker):
    owner = owner_of(broker, ["x"])
    broker.publish(messages("1", "2", queue="x") + messages("3", queue="x", priority=9))
    broker.publish(messages("4", queue="x", due=time.time() + 100))
    broker.lease(owner, ["x"], 1)
    y, x = broker.depth(["y", "x"])
    assert (x.queue, x.ready, x.scheduled, x.consumers) == ("x", 2, 1, 1)
    assert (y.queue, y.ready, y.scheduled, y.consumers, y.oldest_age) == ("y", 0, 0, 0, None)
    assert broker.leased_count() == 1
    assert broker.depth([]) == []


@pytest.mark.needs("shows_age")
def test_depth_tells_how_long_the_next_message_has_waited(broker):
    raw = b'{"headers": {"celeriac-sent": %f}}' % time.time()
    broker.publish(messages(raw))
    age = wait_until(lambda: broker.depth([QUEUE])[0].oldest_age)
    assert 0 < age < 10


def test_depth_counts_only_live_consumers(broker):
    stays, leaves, dies = owner_of(broker), owner_of(broker), owner_of(broker, ttl=0.05)
    broker.unregister(leaves)
    wait_until(lambda: broker.expired() == [dies])
    assert broker.depth([QUEUE])[0].consumers == 1
    assert broker.beat([stays], [QUEUE], TTL) == []


@pytest.mark.needs("promotes")
def test_purging_throws_away_what_is_ready_or_scheduled_but_not_what_is_leased(broker, owner):
    broker.publish(messages("held", "1", "2") + messages("3", priority=9) + messages("4", due=time.time() + 100))
    broker.publish(messages("other", queue="other"))
    (held,) = broker.lease(owner, [QUEUE], 1)
    assert broker.purge(QUEUE) == 4
    assert broker.purge(QUEUE) == 0
    assert broker.leased(owner) == [held]
    assert places(broker, [QUEUE, "other"]) == 2


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_a_dead_letter_keeps_everything(broker, owner):
    raw = b"\x00 not json \xff"
    broker.publish(messages(raw))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    letter = DeadLetter(
        "poison", "Boom: ü", "app.resize", "id-1", "Traceback…\n  line", 3, 2, "w@host", 1_700_000_000.25
    )
    broker.settle(owner, [Outcome(delivery, State.FAILED, dead=letter)])
    assert broker.leased_count() == 0
    (dead,) = broker.dead_letters()
    assert (dead.queue, dead.raw, dead.at) == (QUEUE, raw, pytest.approx(letter.at))
    assert (dead.reason, dead.error, dead.task, dead.task_id) == ("poison", "Boom: ü", "app.resize", "id-1")
    assert (dead.traceback, dead.attempts, dead.crashes, dead.worker) == (letter.traceback, 3, 2, "w@host")
    assert broker.dead_letter(dead.id) == dead


def test_dead_letters_are_listed_newest_first_in_pages(broker):
    for n in range(5):
        kill(broker, str(n))
    first = broker.dead_letters(limit=2)
    second = broker.dead_letters(limit=2, before=first[-1].id)
    third = broker.dead_letters(limit=2, before=second[-1].id)
    assert [dead.raw for dead in (*first, *second, *third)] == [b"4", b"3", b"2", b"1", b"0"]
    assert broker.dead_letters(before=third[-1].id) == []
    assert broker.dead_count() == 5


@pytest.mark.needs("keeps_place")
def test_a_replayed_dead_letter_goes_to_the_tail_of_its_queue_with_its_priority(broker, owner):
    broker.publish(messages("doomed", priority=6))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.settle(owner, [failed(delivery)])
    broker.publish(messages("waiting", priority=6) + messages("last", priority=9))
    assert broker.replay(broker.dead_letters()[0].id)
    assert broker.dead_count() == 0
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"waiting", b"doomed", b"last"]


def test_replaying_twice_sends_once(kit):
    broker = kit.broker()
    kill(broker)
    (dead,) = broker.dead_letters()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda node: node.replay(dead.id), [kit.broker() for _ in range(4)]))
    assert sorted(answers) == [False, False, False, True]
    assert broker.depth([QUEUE])[0].ready == 1


def test_a_dead_letter_is_replayed_edited_and_elsewhere(broker, owner):
    kill(broker)
    assert broker.replay(broker.dead_letters()[0].id, Message("other", b"edited"))
    assert [depth.ready for depth in broker.depth([QUEUE, "other"])] == [0, 1]
    assert raws(broker.lease(owner, ["other"], 1)) == [b"edited"]


def test_discarded_dead_letters_are_gone(broker):
    for n in range(3):
        kill(broker, str(n))
    newest, _, oldest = broker.dead_letters()
    assert broker.discard([newest.id, oldest.id]) == 2
    assert broker.discard([newest.id]) == 0
    assert broker.discard([]) == 0
    assert [dead.raw for dead in broker.dead_letters()] == [b"1"]
    assert not broker.replay(newest.id)
    assert broker.dead_letter(newest.id) is None


def test_dead_letters_expire_by_the_time_of_death_the_oldest_first(broker):
    for n in range(5):
        kill(broker, str(n), at=1_700_000_000.5 + n)
    assert broker.expire_dead(1_700_000_000.0) == 0
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 2
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3", b"2"]
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 1
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 0
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3"]


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


# -- the object --------------------------------------------------------------------------------------------------------


def test_threads_share_one_broker_object(broker):
    wanted = {f"{thread}/{n}".encode() for thread in range(4) for n in range(50)}

    def send(thread):
        for n in range(50):
            broker.publish(messages(f"{thread}/{n}"))

    def drain(owner):
        seen = []
        while len(seen) < 50 or broker.depth([QUEUE])[0].ready:
            deliveries = broker.lease(owner, [QUEUE], 7)
            seen += raws(deliveries)
            assert broker.settle(owner, done(*deliveries)).fenced == 0
            if not deliveries and all(sender.done() for sender in senders):
                break
        return seen

    with ThreadPoolExecutor(6) as pool:
        senders = [pool.submit(send, thread) for thread in range(4)]
        drains = [pool.submit(drain, owner_of(broker)) for _ in range(2)]
        for sender in senders:
            sender.result(60)
        seen = [raw for future in drains for raw in future.result(60)]
    seen += drain(owner_of(broker)) if broker.depth([QUEUE])[0].ready else []
    assert len(seen) == len(wanted)
    assert set(seen) == wanted
    assert places(broker) == 0


def test_a_closed_broker_can_be_used_again(broker, owner):
    broker.publish(messages("a"))
    broker.close()
    broker.close()
    broker.ping()
    assert raws(broker.lease(owner, [QUEUE], 1)) == [b"a"]


def test_the_url_is_for_people_to_read(broker):
    assert broker.url.partition(":")[0] in {"sqlite", "redis", "postgresql", "amqp"}


def test_owners_in_several_objects_lease_each_message_once(kit):
    brokers = [kit.broker() for _ in range(3)]
    brokers[0].publish(messages(*(str(n) for n in range(600))))

    def drain(broker):
        owner = owner_of(broker)
        taken = []
        while deliveries := broker.lease(owner, [QUEUE], 9):
            taken += raws(deliveries)
            assert broker.settle(owner, done(*deliveries)).fenced == 0
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = [raw for part_taken in pool.map(drain, brokers) for raw in part_taken]
    assert sorted(int(raw) for raw in taken) == list(range(600))
    assert places(brokers[0]) == 0
