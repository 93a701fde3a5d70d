"""What every broker must do: the sentences of :mod:`celeriac.broker`, one test each.  Here: sending, leasing, settling, releasing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.message import Delivery, Message
from celeriac.outcome import Outcome, State
from tests.conformance.kits import (
    QUEUE,
    done,
    messages,
    owner_of,
    part,
    places,
    raws,
    record,
    tags,
)

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
