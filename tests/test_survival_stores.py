"""Redis and PostgreSQL that are restarted, killed, silent, refusing, or lose connections and answers."""

from __future__ import annotations

import threading
import time

import pytest
from kombu.exceptions import OperationalError

from tests.helpers import wait_until
from tests.workers import Stage

TASKS = 400
_TIMEOUTS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "answer_timeout": 1.0, "connect_timeout": 0.5}
QUICK = {"broker_transport_options": _TIMEOUTS, "result_backend_transport_options": _TIMEOUTS}
"""So that a silent server is noticed soon."""


@pytest.fixture(params=["redis", "postgres"])
def kind(request):
    return request.param


@pytest.fixture
def server(request, kind):
    """A server of the test's own."""
    return request.getfixturevalue(f"{kind}_server")


@pytest.fixture
def url(request, kind):
    return request.getfixturevalue(f"{kind}_url")


@pytest.fixture
def way(request, kind):
    """A faulty way to ``url``."""
    return request.getfixturevalue("proxy" if kind == "redis" else "postgres_proxy")


def send_slowly(stage, keys, pause=0.0):
    """Send one by one; what could not be sent for sure is sent again under the same id.  Return the results."""
    results = []
    for key in keys:
        task_id = f"id-{key}"
        while True:
            try:
                results.append(stage.send("note_late", key, task_id=task_id))
                break
            except OperationalError:
                time.sleep(0.05)
        if pause:
            time.sleep(pause)
    return results


def assert_all_ran(stage, keys, *, most=1):
    """Each has run; none more often than ``most``."""
    wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 30, lambda: missing(stage, keys))
    stage.wait_until_drained()
    counts = stage.effects.count("ran")
    assert set(counts) == set(keys)
    assert max(counts.values()) <= most, {key: count for key, count in counts.items() if count > most}
    assert stage.dead() == []


def missing(stage, keys):
    return f"never ran: {sorted(set(keys) - set(stage.effects.count('ran')))[:10]}"


@pytest.mark.parametrize("blow", ["restart", "kill"])
def test_a_store_that_goes_away_under_load_and_comes_back_loses_and_doubles_nothing(server, tmp_path, blow):
    keys = [f"k{n}" for n in range(TASKS)]
    with Stage(tmp_path, server.url) as stage, stage.worker():
        stage.send_many("note_late", keys)
        wait_until(lambda: len(stage.effects.of("ran")) > TASKS // 10, 20)
        if blow == "restart":
            server.restart()
        else:
            server.kill()
            server.start()
        wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 20, lambda: missing(stage, keys))
        after = stage.send("note", "after")
        assert after.get(timeout=10) == "after"
        assert_all_ran(stage, [*keys, "after"])


def test_workers_and_producers_outlast_a_store_that_is_away_for_some_seconds(way, tmp_path):
    with Stage(tmp_path, way.url, conf=QUICK) as stage, stage.worker():
        held = stage.send("hold_late", "held", "gate")
        stage.wait_for("started", "held")
        way.refuse()
        started = time.monotonic()
        with pytest.raises(OperationalError, match="Gave up sending"):
            stage.send("note_late", "refused")
        assert time.monotonic() - started < 3
        stage.effects.open_gate("gate")
        stage.wait_for("ran", "held")
        way.resume()
        assert held.get(timeout=10) == "held"
        assert stage.send("note_late", "after").get(timeout=10) == "after"
        assert stage.effects.count("ran") == {"held": 1, "after": 1}


def test_a_worker_that_starts_while_the_store_is_away_waits_for_it(way, tmp_path):
    with Stage(tmp_path, way.url, conf=QUICK) as stage:
        result = stage.send("note_late", "k")
        way.refuse()
        worker = stage.worker()
        try:
            worker.launch()
            wait_until(lambda: "Trying again until it is" in worker.log(), 20, worker.log)
            assert worker.process.poll() is None
            way.resume()
            assert result.get(timeout=15) == "k"
        finally:
            worker.close()
        assert "Traceback" not in worker.log()


def test_a_silent_store_costs_a_producer_its_timeout_and_no_more(way, kind, tmp_path):
    connecting = 2.0 if kind == "postgres" else 0.5  # libpq's shortest

    with Stage(tmp_path, way.url, conf=QUICK) as stage:
        stage.send("note_late", "first")
        way.black_hole()
        started = time.monotonic()
        with pytest.raises(OperationalError):
            stage.send("note_late", "swallowed", retry=False)
        assert time.monotonic() - started < 1 + connecting
        started = time.monotonic()
        with pytest.raises(OperationalError):
            stage.send("note_late", "swallowed", retry_policy={"max_retries": 1})
        assert time.monotonic() - started < 2 * connecting + 2
        way.resume()


def test_a_silent_store_holds_workers_up_and_nothing_else(way, tmp_path):
    keys = [f"k{n}" for n in range(TASKS)]
    with Stage(tmp_path, way.url, conf=QUICK) as stage, stage.worker():
        stage.send_many("note_late", keys)
        wait_until(lambda: len(stage.effects.of("ran")) > TASKS // 10, 20)
        way.black_hole()
        time.sleep(2)
        way.cut()
        way.resume()
        assert_all_ran(stage, keys)


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_connections_that_drop_again_and_again_under_load_lose_and_double_nothing(way, url, tmp_path, pool):
    keys = [f"k{n}" for n in range(TASKS)]
    with Stage(tmp_path, url) as stage, stage.worker(broker=way.url, backend=way.url, pool=pool):
        ended = threading.Event()

        def disturb():
            while not ended.wait(0.1):
                way.cut()

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            results = send_slowly(stage, keys, 0.002)
            wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 30, lambda: missing(stage, keys))
        finally:
            ended.set()
            disturber.join()
        assert_all_ran(stage, keys)
        assert all(result.get(timeout=10) for result in results)


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_answers_that_are_lost_after_the_server_did_its_work_strand_and_double_nothing(way, url, tmp_path, pool):
    keys = [f"k{n}" for n in range(TASKS)]
    with Stage(tmp_path, url) as stage, stage.worker(broker=way.url, backend=way.url, pool=pool):
        ended = threading.Event()

        def disturb():
            while not ended.wait(0.1):
                way.lose_replies()
                ended.wait(0.02)
                way.resume()

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            # Among them slow ones, behind which others wait and are handed back.
            for n, key in enumerate(keys):
                stage.send("pause_late" if n % 100 == 50 else "note_late", key, *([0.2] if n % 100 == 50 else []))
            wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 40, lambda: missing(stage, keys))
        finally:
            ended.set()
            disturber.join()
            way.resume()
        assert_all_ran(stage, keys)


def test_a_restart_that_lost_everything_leaves_workers_that_serve_what_comes(server, kind, tmp_path):
    with Stage(tmp_path, server.url) as stage, stage.worker():
        assert stage.send("note", "before").get(timeout=10) == "before"
        if kind == "redis":
            with server.client() as client:
                client.flushall()
                client.script_flush()
        else:
            server.empty("postgres")
        after = stage.send_many("note", [f"after-{n}" for n in range(20)])
        assert [each.get(timeout=15) for each in after]
