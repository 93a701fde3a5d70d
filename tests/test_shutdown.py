"""Ways to stop a worker: what runs, what has not started, and what is left afterwards."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from celery.exceptions import WorkerLostError

from tests.helpers import wait_until
from tests.workers import Stage, is_alive

POOLS = ["processes", "threads", "asyncio", "solo"]
EXIT_OK, EXIT_CUT_OFF = 0, 1


@pytest.fixture
def stage(tmp_path, redis_url):
    with Stage(tmp_path, redis_url) as stage:
        yield stage


@pytest.fixture
def embedded(tmp_path):
    with Stage(tmp_path) as stage:
        yield stage


def start_holding(stage, *keys, late=False):
    """Have these tasks running; they end at the gate."""
    results = [stage.send("hold_late" if late else "hold", key, "gate") for key in keys]
    for key in keys:
        stage.wait_for("started", key)
    return results


def is_stopping(worker):
    return "shutdown" in worker.log()


def assert_warm_stop(stage, worker, stop):
    """Running tasks finish, those that have not started go back and run elsewhere."""
    running = start_holding(stage, "running")
    waiting = stage.send_many("note", [f"waiting-{n}" for n in range(20)]) if worker.pool == "solo" else []
    stop()
    wait_until(lambda: is_stopping(worker), 10)
    assert worker.process.poll() is None
    stage.effects.open_gate("gate")
    assert worker.wait() == EXIT_OK
    assert running[0].get(timeout=5) == "running"
    assert stage.broker.leased_count() == 0
    assert stage.broker.depth(["celery"])[0].ready == len(waiting)
    assert stage.broker.depth(["celery"])[0].consumers == 0
    assert stage.dead() == []


@pytest.mark.parametrize("pool", POOLS)
def test_sigterm_lets_running_tasks_finish(stage, pool):
    with stage.worker(pool=pool) as worker:
        assert_warm_stop(stage, worker, lambda: worker.signal(signal.SIGTERM))


def test_sigterm_lets_running_tasks_finish_on_the_embedded_default(embedded):
    with embedded.worker() as worker:
        assert_warm_stop(embedded, worker, lambda: worker.signal(signal.SIGTERM))


@pytest.mark.parametrize("pool", ["processes", "solo"])
def test_sigterm_to_the_whole_process_group_is_as_good(stage, pool):
    with stage.worker(pool=pool) as worker:
        assert_warm_stop(stage, worker, lambda: worker.signal_group(signal.SIGTERM))


def test_ctrl_c_reaches_all_processes_and_stops_warmly(stage):
    with stage.worker() as worker:
        assert_warm_stop(stage, worker, lambda: worker.signal_group(signal.SIGINT))


def test_an_idle_worker_stops_soon(stage):
    with stage.worker() as worker:
        started = time.monotonic()
        assert worker.stop() == EXIT_OK
        assert time.monotonic() - started < 3


def assert_cold_stop(stage, worker, stop):
    """What was acknowledged late goes back unharmed; the rest is lost, and says so."""
    (late,) = start_holding(stage, "late", late=True)
    (early,) = start_holding(stage, "early") if worker.pool != "solo" else (None,)
    slots = worker.slots()
    stop()
    assert worker.wait() == EXIT_CUT_OFF
    assert not any(map(is_alive, slots))
    assert stage.broker.leased_count() == 0
    if early is not None:
        with pytest.raises(WorkerLostError, match="cold shutdown"):
            early.get(timeout=5)
        assert [letter.reason for letter in stage.dead()] == ["lost"]
    assert stage.broker.depth(["celery"])[0].ready == 1
    (delivery,) = lease_all(stage)
    assert b"celeriac-crashes" not in delivery.raw
    assert late.state == "PENDING"


def lease_all(stage):
    stage.broker.register("test", ["celery"], 60)
    return stage.broker.lease("test", ["celery"], 100)


@pytest.mark.parametrize("pool", POOLS)
def test_sigquit_ends_running_tasks_at_once(stage, pool):
    with stage.worker(pool=pool) as worker:
        assert_cold_stop(stage, worker, lambda: worker.signal(signal.SIGQUIT))


def test_sigquit_ends_running_tasks_at_once_on_the_embedded_default(embedded):
    with embedded.worker() as worker:
        assert_cold_stop(embedded, worker, lambda: worker.signal(signal.SIGQUIT))


def test_an_early_acknowledged_task_of_a_solo_worker_is_lost_in_a_cold_stop(stage):
    with stage.worker(pool="solo") as worker:
        (early,) = start_holding(stage, "early")
        worker.signal(signal.SIGQUIT)
        assert worker.wait() == EXIT_CUT_OFF
        with pytest.raises(WorkerLostError, match="cold shutdown"):
            early.get(timeout=5)


def test_a_second_ctrl_c_is_a_cold_stop(stage):
    with stage.worker() as worker:

        def interrupt_twice():
            worker.signal_group(signal.SIGINT)
            wait_until(lambda: "Warm shutdown" in worker.log(), 10)
            worker.signal_group(signal.SIGINT)

        assert_cold_stop(stage, worker, interrupt_twice)


def test_sigterm_can_be_remapped_to_a_cold_stop(stage):
    with stage.worker(env={"REMAP_SIGTERM": "SIGQUIT"}) as worker:
        assert_cold_stop(stage, worker, lambda: worker.signal(signal.SIGTERM))


def test_a_soft_stop_gives_running_tasks_their_time(stage):
    with stage.worker(conf={"worker_soft_shutdown_timeout": 10}) as worker:
        (running,) = start_holding(stage, "running")
        worker.signal(signal.SIGQUIT)
        wait_until(lambda: is_stopping(worker), 10)
        assert "Initiating Soft Shutdown, terminating in 10 seconds" in worker.log()
        stage.effects.open_gate("gate")
        assert worker.wait(8) == EXIT_OK
        assert running.get(timeout=5) == "running"


def test_a_soft_stop_ends_in_a_cold_one(stage):
    with stage.worker(conf={"worker_soft_shutdown_timeout": 0.5}) as worker:
        assert_cold_stop(stage, worker, lambda: worker.signal(signal.SIGQUIT))


def test_a_second_sigquit_does_not_wait_for_the_soft_stop(stage):
    with stage.worker(conf={"worker_soft_shutdown_timeout": 60}) as worker:

        def quit_twice():
            worker.signal(signal.SIGQUIT)
            wait_until(lambda: is_stopping(worker), 10)
            worker.signal(signal.SIGQUIT)

        assert_cold_stop(stage, worker, quit_twice)
        assert "Waiting gracefully for cold shutdown to complete..." in worker.log()


def test_a_cold_stop_while_slots_are_only_just_starting(stage):
    worker = stage.worker()
    try:
        worker.launch()
        wait_until(worker.slots, 20)
        worker.signal(signal.SIGQUIT)
        assert worker.wait() in (EXIT_OK, EXIT_CUT_OFF)
    finally:
        worker.close()


def test_a_rolling_restart_under_load_loses_fails_and_doubles_nothing(stage):
    """Two nodes, each replaced while early and late acknowledged tasks keep coming."""
    sent, ended = [], threading.Event()

    def keep_sending():
        n = 0
        while not ended.is_set():
            with stage.client.batch():
                sent.extend(
                    stage.send(("note", "note_late", "pause", "pause_late")[i % 4], f"k{n + i}", *[0.01][: i % 4 // 2])
                    for i in range(8)
                )
            n += 8
            time.sleep(0.04)

    sender = threading.Thread(target=keep_sending)
    nodes = [stage.worker(name=f"node-{n}").start() for n in range(2)]
    try:
        sender.start()
        for n in range(2, 4):
            nodes.append(stage.worker(name=f"node-{n}").start())
            assert nodes[n - 2].stop() == EXIT_OK
    finally:
        ended.set()
        sender.join()
        try:
            stage.wait_until_drained(30)
        finally:
            for node in nodes:
                node.close()
    counts = stage.effects.count("ran")
    assert len(sent) > 100
    assert len(counts) == len(sent)
    assert set(counts.values()) == {1}
    assert stage.dead() == []
