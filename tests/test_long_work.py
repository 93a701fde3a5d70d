"""Progress, cursors and cancellation, on real workers that are killed and restarted."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from celery.bin.base import CLIContext
from celery.result import AsyncResult
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import celeriac
from celeriac.cli.progress import cancel as cancel_command
from celeriac.cli.progress import progress as progress_command
from celeriac.compat import connect
from celeriac.compat.long_work.orders import ENTRIES, PAGE, CancelLog, CancelOrder
from celeriac.compat.long_work.work import CURSORS, Cursor, all_progress, progress_of
from celeriac.errors import CeleriacError
from celeriac.keyvalue import ABSENT, KeyValueStore
from celeriac.policies.progress import Progress
from tests.helpers import wait_until
from tests.stages import STORES, each_stage
from tests.workers import Stage

APP = "tests.apps.long_work"


@pytest.fixture(params=STORES)
def stage(request, tmp_path) -> Iterator[Stage]:
    yield from each_stage(request, tmp_path, APP)


@pytest.fixture
def store(stage) -> Iterator[KeyValueStore]:
    store = connect.open_key_values(stage.client)
    yield store
    store.close()


def state_of(stage: Stage, result: AsyncResult) -> str:
    return str(stage.client.AsyncResult(result.id).state)


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_seen_from_anywhere_while_the_task_runs(stage):
    with stage.worker(concurrency=1):
        result = stage.send("report", "gate")
        seen = wait_until(
            lambda: found if (found := result.progress()) and found.done >= 3 and found.rate else None, 15
        )
        assert (seen.task, seen.total, seen.task_id) == (f"{APP}.report", 10, result.id)
        assert seen.note.startswith("step")
        assert 2 < seen.rate < 20
        assert seen.seconds_left == pytest.approx((10 - seen.done) / seen.rate)
        assert [each.task_id for each in all_progress(stage.client)] == [result.id]

        stage.effects.open_gate("gate")
        result.get(timeout=15)
        assert wait_until(lambda: progress_of(stage.client, result.id).done == 10, 5)


def test_an_operator_sees_progress_and_cancels(stage):
    context = CLIContext(stage.client, no_color=True, workdir=None)

    def run(command, *words):
        return CliRunner().invoke(command, words, obj=context, catch_exceptions=False).output

    assert "No task has reported its progress lately." in run(progress_command)
    with stage.worker(concurrency=1):
        result = stage.send("report", "gate")
        table = wait_until(lambda: text if "step" in (text := run(progress_command)) else None, 15)
        assert f"{APP}.report" in table
        (row,) = json.loads(run(progress_command, result.id, "--json"))
        assert row["total"] == 10
        assert "1 task cancelled." in run(cancel_command, result.id, "--grace", "0")
        wait_until(lambda: state_of(stage, result) == "REVOKED", 15)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 1000)), min_size=1, max_size=20))
def test_the_rate_lies_between_the_slowest_and_the_fastest_that_was_reported(steps):
    now, done = 1000.0, 0.0
    found = Progress("task", "id", done, None, "", now, now)
    rates = []
    for interval, more in steps:
        now, done = now + interval, done + more
        rates.append(more / (now - found.at))
        found = found.further(done, None, "", now)

    assert min(rates) - 1e-6 <= found.rate <= max(rates) + 1e-6


@given(st.floats(0.5, 50), st.integers(1, 100), st.floats(0.1, 30))
def test_steady_work_is_estimated_exactly(rate, reports, interval):
    now = 1000.0
    found = Progress("task", "id", 0, 1e6, "", now, now)
    for number in range(1, reports + 1):
        found = found.further(number * rate * interval, 1e6, "", now + number * interval)

    assert found.rate == pytest.approx(rate, rel=1e-3)
    assert found.seconds_left == pytest.approx((1e6 - found.done) / rate, rel=1e-3)


def test_a_clock_that_is_set_back_breaks_no_estimate():
    found = Progress("task", "id", 0, 100, "", 1000.0, 1000.0).further(10, 100, "", 1010.0).further(20, 100, "", 500.0)

    assert found.rate == pytest.approx(1.0)
    assert found.at == 1010.0
    assert Progress.decode(found.encode()) == found


def test_outside_of_a_task_there_is_nothing_to_report():
    with pytest.raises(celeriac.NoTaskHere, match="none runs here"):
        celeriac.progress(1, 2)


# -- the cursor -------------------------------------------------------------------------------------------------------


def test_a_task_whose_process_is_killed_goes_on_where_it_was(stage, store):
    with stage.worker(concurrency=1) as worker:
        result = stage.send("export", 150, 0.01)
        for seen in (40, 90):
            wait_until(lambda seen=seen: len(stage.effects.of("row")) >= seen, 20)
            os.kill(worker.slots()[0], signal.SIGKILL)
            wait_until(worker.slots, 10)
        assert result.get(timeout=30) == 150

    counts = stage.effects.count("row")
    assert set(counts) == {str(row) for row in range(150)}
    assert sum(counts.values()) <= 150 + 2 * 30, "a crash costs what was done since the last save"
    wait_until(lambda: store.read(CURSORS, [result.id])[1] == [None], 5)


def test_a_second_attempt_goes_on_where_the_first_one_stopped(stage):
    with stage.worker(concurrency=1):
        assert stage.send("in_two_goes", 20).get(timeout=20) == 10
    assert [effect.key for effect in stage.effects.of("began")] == ["0", "10"]


def test_a_run_that_was_given_up_for_dead_cannot_move_the_cursor_back(store):
    first, second = Cursor(store, "task", None), Cursor(store, "task", None)
    assert first.load() is None
    first.save(10, every=0)

    assert second.load() == 10
    second.save(20, every=0)
    with pytest.raises(celeriac.CursorLost, match="goes on from its cursor"):
        first.save(11, every=0)

    assert Cursor(store, "task", None).load() == 20


def test_saving_often_costs_a_round_trip_now_and_then(store):
    cursor = Cursor(store, "task", None)
    cursor.load()
    before = store.round_trips

    for row in range(1000):
        cursor.save(row, every=60)

    assert store.round_trips - before <= 2


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_a_running_task_that_asks_hears_within_two_seconds_and_ends_as_revoked(stage):
    with stage.worker(concurrency=2):
        polite, tidy = stage.send("polite", "a"), stage.send("tidy", "b")
        stage.wait_for("started", "a")
        stage.wait_for("started", "b")
        cancelled_at = time.time()

        stage.client.control.cancel([polite.id, tidy.id])

        (asked,) = stage.wait_for("asked", "a")
        stage.wait_for("tidied", "b")
        assert asked.at - cancelled_at < 2.0
        wait_until(lambda: state_of(stage, polite) == state_of(stage, tidy) == "REVOKED", 5)


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_a_task_that_does_not_ask_gets_an_exception(stage, pool):
    with stage.worker(concurrency=1, pool=pool) as worker:
        result = stage.send("deaf", "a")
        stage.wait_for("started", "a")

        result.cancel(grace=0.3)

        wait_until(lambda: state_of(stage, result) == "REVOKED", 10)
        assert "it gets an exception" in worker.log()
        assert "is killed" not in worker.log()


def test_a_task_that_takes_no_exception_for_an_answer_is_killed(stage):
    with stage.worker(concurrency=1) as worker:
        result = stage.send("stubborn", "a")
        stage.wait_for("started", "a")

        result.cancel(grace=0.5)

        wait_until(lambda: state_of(stage, result) == "REVOKED", 15)
        assert stage.effects.of("caught", "a")
        assert "its process is killed" in worker.log()
        assert len(stage.effects.of("started", "a")) == 1


@pytest.mark.parametrize("how", ["cancel", "revoke"])
def test_what_is_cancelled_while_no_worker_is_there_never_runs(stage, how):
    kept = [stage.send("report", "gate") for _ in range(2)]
    later = stage.send("report", "gate", countdown=2)
    if how == "cancel":
        stage.client.control.cancel([kept[0].id, later.id])
    else:
        stage.client.control.revoke([kept[0].id, later.id])
    stage.effects.open_gate("gate")

    for _ in range(2):  # it holds across a restart, too
        with stage.worker(concurrency=1) as worker:
            kept[1].get(timeout=20)
            wait_until(lambda: state_of(stage, kept[0]) == "REVOKED", 10)
            worker.stop()  # a killed one would keep what it had leased until its time is up
    with stage.worker(concurrency=1):
        wait_until(lambda: state_of(stage, later) == "REVOKED", 10)
    assert progress_of(stage.client, kept[0].id) is None
    assert progress_of(stage.client, later.id) is None


def test_a_revocation_by_a_stock_client_lasts_as_well(stage, store):
    import celery.app.control  # noqa: PLC0415 - the point is that it is Celery's

    with stage.worker(concurrency=1, conf={"worker_enable_remote_control": True}):
        stock = celery.app.control.Control(stage.client)
        answers = stock.revoke("some-id", reply=True, timeout=5, limit=1)
        assert len(answers) == 1
        wait_until(lambda: CancelLog(store).read()[1], 5)

    assert [order.task_ids for order in CancelLog(store).read()[1]] == [("some-id",)]


# -- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_gives_what_is_new_in_one_round_trip_when_there_is_nothing(store):
    log = CancelLog(store)
    log.append(CancelOrder(("a", "b"), stop=True, grace=3.0))
    place, orders = log.read()
    assert [(order.task_ids, order.stop, order.grace) for order in orders] == [(("a", "b"), True, 3.0)]

    before = store.round_trips
    assert log.read(place) == (place, [])
    assert store.round_trips - before == 1
    log.append(CancelOrder(("c",)))
    assert [order.task_ids for order in log.read(place)[1]] == [("c",)]


def test_many_who_cancel_at_once_lose_nothing(stage):
    def cancel(number: int) -> None:
        log = CancelLog(connect.open_key_values(stage.client))
        for each in range(10):
            log.append(CancelOrder((f"{number}-{each}",)))

    threads = [threading.Thread(target=cancel, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    orders = CancelLog(connect.open_key_values(stage.client)).read()[1]
    assert sorted(order.task_ids[0] for order in orders) == sorted(
        f"{n}-{each}" for n in range(6) for each in range(10)
    )


def test_an_entry_whose_writer_died_before_saying_so_holds(store):
    log = CancelLog(store)
    log.append(CancelOrder(("a",)))
    raw = json.dumps(CancelOrder(("orphan",))).encode()
    store.write(ENTRIES, "1", raw, ttl=60, version=ABSENT)  # and no word of it in the head

    log.append(CancelOrder(("b",)))

    assert [order.task_ids[0] for order in log.read()[1]] == ["a", "orphan", "b"]


def test_what_has_outlived_its_time_is_not_looked_for_again(store):
    short = CancelLog(store, kept=0.05)
    for number in range(PAGE + 5):
        short.append(CancelOrder((str(number),)))
    wait_until(lambda: store.read(ENTRIES, [str(PAGE + 4)])[1] == [None], 5)
    log = CancelLog(store)
    log.append(CancelOrder(("kept",)))

    assert [order.task_ids[0] for order in log.read()[1]] == ["kept"]
    before = store.round_trips
    assert [order.task_ids[0] for order in log.read()[1]] == ["kept"]
    assert store.round_trips - before == 2


def test_without_a_store_a_cancellation_is_refused_with_the_way_out():
    app = celeriac.Celery("none", broker="amqp://", backend="rpc://", set_as_current=False)
    with pytest.raises(CeleriacError, match="set celeriac_state_url"):
        app.control.cancel("some-id")
