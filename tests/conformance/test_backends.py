"""What every result store must do: the sentences of :mod:`celeriac.backend`, one test each."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.message import Message
from celeriac.outcome import Outcome, Result, State
from tests.conformance.kits import part, record
from tests.helpers import wait_until

# -- results -----------------------------------------------------------------------------------------------------------


def test_results_come_back_in_the_order_asked(backend):
    backend.store([record("a"), record("b", "FAILURE")])
    wanted = [record("b", "FAILURE").payload, None, record("a").payload]
    assert backend.fetch(["b", "unknown", "a"]) == wanted
    assert backend.fetch([]) == []


def test_a_later_result_replaces_an_earlier_one(backend):
    backend.store([record("a", "STARTED")])
    backend.store([record("a", "RETRY"), record("a", "SUCCESS")])
    assert backend.fetch(["a"]) == [record("a").payload]


@pytest.mark.parametrize("payload", [b"\x00\xff\x80", b"x" * 20_000_000])
def test_any_payload_comes_back_as_it_was(backend, payload):
    backend.store([Result("a", "SUCCESS", payload)])
    assert backend.fetch(["a"]) == [payload]


def test_a_guarded_write_keeps_a_success(backend):
    backend.store([record("a", result=1)])
    backend.store([record("a", "RETRY"), record("b", "SUCCESS")], guarded=True)
    assert backend.fetch(["a", "b"]) == [record("a", result=1).payload, record("b").payload]


@pytest.mark.parametrize("state", ["STARTED", "RETRY", "PROGRESS", "FAILURE"])
def test_a_guarded_write_replaces_what_is_no_success(backend, state):
    backend.store([record("a", state)])
    backend.store([record("a")], guarded=True)
    assert backend.fetch(["a"]) == [record("a").payload]


def test_forgotten_results_are_gone(backend):
    backend.store([record("a"), record("b")])
    backend.forget(["a", "unknown"])
    backend.forget([])
    assert backend.fetch(["a", "b"]) == [None, record("b").payload]


def test_a_thousand_results_are_one_round_trip(backend):
    backend.store([record("first")])  # a script may have to be loaded
    before = backend.round_trips
    backend.store([record(str(n)) for n in range(1000)])
    assert backend.round_trips - before == 1
    found = backend.fetch([str(n) for n in range(1000)])
    assert backend.round_trips - before == 2
    assert None not in found


def test_storing_nothing_does_nothing(backend):
    backend.store([])
    assert backend.count_parts([]) == []


def test_a_result_expires(kit):
    backend = kit.backend(ttl=1)
    backend.store([record("a")])
    backend.store_group("g", b"group")
    assert backend.fetch(["a"]) == [record("a").payload]
    wait_until(lambda: backend.fetch(["a"]) == [None])
    wait_until(lambda: backend.fetch_group("g") is None)
    assert backend.expire() in {0, 2}
    assert backend.expire() == 0


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_waiting_ends_when_the_result_comes(kit):
    waiter, writer = kit.backend(), kit.backend()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiter.wait, ["a", "b"], 20.0)
        time.sleep(0.05)  # not to synchronise: the wait should be asleep, but the test holds either way
        began = time.monotonic()
        writer.store([record("b")])
        assert answer.result(30)
    assert time.monotonic() - began < 5


def test_waiting_ends_when_a_settle_writes_the_result(kit):
    from_settle = kit.backend()
    broker = kit.broker(from_settle)
    broker.register("o", ["q"], 60)
    waiter = kit.backend()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiter.wait, ["a"], 20.0)
        _settle_one(broker, record("a"))
        assert answer.result(30)


def _settle_one(broker, result):
    broker.publish([Message("q", b"m")])
    (delivery,) = broker.lease("o", ["q"], 1)
    broker.settle("o", [Outcome(delivery, State.SUCCEEDED, results=(result,))])


def test_waiting_ends_at_once_for_a_result_that_is_there(backend):
    backend.store([record("a")])
    began = time.monotonic()
    assert backend.wait(["a"], 20.0)
    assert time.monotonic() - began < 5


def test_waiting_ends_when_the_time_is_over(backend):
    began = time.monotonic()
    assert not backend.wait(["a"], 0.2)
    assert 0.19 <= time.monotonic() - began < 5


def test_another_result_does_not_end_the_wait(kit):
    waiter, writer = kit.backend(), kit.backend()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiter.wait, ["a"], 0.3)
        writer.store([record("b")])
        assert not answer.result(10)


def test_several_threads_wait_at_once(kit):
    waiter, writer = kit.backend(), kit.backend()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(waiter.wait, [name], 20.0) for name in "abc"]
        writer.store([record(name) for name in "abc"])
        assert all(answer.result(30) for answer in answers)


# -- groups ------------------------------------------------------------------------------------------------------------


def test_groups_are_kept_and_forgotten(backend):
    assert backend.fetch_group("g") is None
    backend.store_group("g", b"one")
    backend.store_group("g", b"\x00two")
    assert backend.fetch_group("g") == b"\x00two"
    backend.forget_group("g")
    backend.forget_group("g")
    assert backend.fetch_group("g") is None


# -- chords ------------------------------------------------------------------------------------------------------------


def test_the_part_that_completes_a_chord_is_returned(backend):
    backend.start_chord("g", 3)
    assert backend.count_parts([part("g", 0), part("g", 2)]) == []
    last = part("g", 1)
    assert backend.count_parts([last]) == [last]
    assert backend.chord_parts("g") == [b"payload 0", b"payload 1", b"payload 2"]


def test_counting_many_parts_is_one_round_trip(backend):
    backend.start_chord("g", 100)
    before = backend.round_trips
    completed = backend.count_parts([part("g", n) for n in range(100)])
    assert backend.round_trips - before == 1
    assert completed == [part("g", 99)]


def test_a_part_counts_once_however_often_it_is_given(backend):
    backend.start_chord("g", 2)
    for _ in range(3):
        assert backend.count_parts([part("g", 0), part("g", 0)]) == []
    assert backend.count_parts([part("g", 1)]) == [part("g", 1)]
    assert backend.chord_parts("g") == [b"payload 0", b"payload 1"]


def test_two_parts_with_equal_payloads_count_as_two(backend):
    backend.start_chord("g", 2)
    assert backend.count_parts([part("g", 0, payload=b'["a", "SUCCESS", 1]')]) == []
    assert len(backend.count_parts([part("g", 1, payload=b'["b", "SUCCESS", 1]')])) == 1


def test_parts_may_be_counted_before_the_size_is_known(backend):
    assert backend.count_parts([part("g", 0)]) == []
    backend.start_chord("g", 2)
    assert backend.count_parts([part("g", 1)]) == [part("g", 1)]
    assert len(backend.chord_parts("g")) == 2


def test_parts_without_an_index_count_too(backend):
    backend.start_chord("g", 2)
    first, last = part("g", None, "t1", b"one"), part("g", None, "t2", b"two")
    assert backend.count_parts([first]) == []
    assert backend.count_parts([last]) == [last]
    assert sorted(backend.chord_parts("g")) == [b"one", b"two"]


def test_who_completed_a_chord_gets_it_again_and_nobody_else_does(backend):
    backend.start_chord("g", 2)
    first, last = part("g", 0), part("g", 1)
    backend.count_parts([first])
    assert backend.count_parts([last]) == [last]
    assert backend.count_parts([first]) == []
    assert backend.count_parts([last]) == [last]


def test_a_finished_chord_is_not_completed_again(backend):
    backend.start_chord("g", 2)
    backend.count_parts([part("g", 0), part("g", 1)])
    backend.finish_chord("g")
    backend.finish_chord("g")
    assert backend.count_parts([part("g", 0), part("g", 1)]) == []
    assert backend.chord_parts("g") == []


def test_a_chord_that_grew_waits_for_the_added_members(backend):
    backend.start_chord("g", 1)
    backend.grow_chord("g", 2)
    assert backend.count_parts([part("g", 0), part("g", 1)]) == []
    assert backend.count_parts([part("g", 2)]) == [part("g", 2)]


def test_chords_do_not_mix(backend):
    backend.start_chord("g", 1)
    backend.start_chord("h", 2)
    assert backend.count_parts([part("h", 0), part("g", 0)]) == [part("g", 0)]


def test_concurrent_members_complete_a_chord_once(kit):
    size = 60
    kit.backend().start_chord("g", size)
    start = threading.Barrier(4)

    def count(worker):
        backend = kit.backend()
        start.wait(10)
        # Each part is given by two workers, as after a redelivery.
        mine = [n for n in range(size) if n % 4 in {worker, (worker + 1) % 4}]
        return [found for n in mine for found in backend.count_parts([part("g", n)])]

    with ThreadPoolExecutor(4) as pool:
        completed = [found for future in pool.map(count, range(4)) for found in future]
    # The same part may come back to both of its workers: it is the same task that owns the callback.
    assert len(set(completed)) == 1
    assert len(kit.backend().chord_parts("g")) == size


# -- the object --------------------------------------------------------------------------------------------------------


def test_threads_share_one_backend_object(backend):
    def write(thread):
        for n in range(50):
            backend.store([record(f"{thread}/{n}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert None not in backend.fetch([f"{thread}/{n}" for thread in range(4) for n in range(50)])


def test_a_closed_backend_can_be_used_again(backend):
    backend.store([record("a")])
    backend.close()
    backend.close()
    assert backend.fetch(["a"]) == [record("a").payload]
