"""RabbitMQ that is restarted, killed or loses connections while workers work."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from urllib.request import urlopen

import pytest
from kombu.exceptions import OperationalError

from tests.helpers import free_port, wait_until
from tests.proxy import FaultProxy
from tests.workers import Stage

TASKS = 300


@pytest.fixture
def server_stage(rabbitmq_server, tmp_path):
    """On a server that may be stopped and killed."""
    with rabbitmq_server.vhost() as url, Stage(tmp_path, url, f"sqlite:///{tmp_path}/results.sqlite3") as stage:
        yield stage
        if not rabbitmq_server.pid:
            rabbitmq_server.start()


def strike(server, blow):
    if blow == "restart":
        server.restart()
    else:
        server.kill()
        server.start()


def missing(stage, keys):
    return f"never ran: {sorted(set(keys) - set(stage.effects.count('ran')))[:10]}"


def wait_until_all_ran(stage, keys, timeout=40):
    wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), timeout, lambda: missing(stage, keys))
    stage.wait_until_drained()


@pytest.mark.parametrize("blow", ["restart", "kill"])
def test_a_server_that_goes_away_under_load_loses_and_doubles_nothing(rabbitmq_server, server_stage, blow):
    stage = server_stage
    keys = [f"k{n}" for n in range(TASKS)]
    with stage.worker():
        early = stage.send("hold", "early", "gate")
        late = stage.send("hold_late", "late", "gate")
        stage.wait_for("started", "early")
        stage.wait_for("started", "late")
        stage.send_many("note_late", keys)  # both slots are busy
        delayed = stage.send("note", "delayed", countdown=6)
        strike(rabbitmq_server, blow)
        stage.effects.open_gate("gate")
        assert early.get(timeout=20) == "early"
        assert late.get(timeout=20) == "late"
        wait_until_all_ran(stage, keys)
        assert delayed.get(timeout=20) == "delayed"
        stage.wait_until_drained()
        assert set(stage.effects.count("ran").values()) == {1}
        assert set(stage.effects.count("started").values()) == {1}
        assert stage.dead() == []


def test_a_server_that_is_killed_while_work_flows_loses_and_doubles_nothing(rabbitmq_server, server_stage):
    stage = server_stage
    keys = [f"k{n}" for n in range(TASKS)]
    with stage.worker():
        stage.send_many("note_late", keys[:5])
        wait_until(lambda: len(stage.effects.of("ran")) == 5, 20)
        stage.send_many("note", keys[5:])
        wait_until(lambda: len(stage.effects.of("ran")) > TASKS // 10, 20)
        strike(rabbitmq_server, "kill")
        wait_until_all_ran(stage, keys)
        assert max(stage.effects.count("ran").values()) == 1
        assert stage.dead() == []


def test_connections_that_drop_again_and_again_lose_and_double_nothing(shared_rabbitmq, rabbitmq_url, tmp_path):
    keys = [f"k{n}" for n in range(TASKS)]
    results = f"sqlite:///{tmp_path}/results.sqlite3"
    with FaultProxy(shared_rabbitmq.port) as proxy, Stage(tmp_path, rabbitmq_url, results) as stage:
        through = rabbitmq_url.replace(f":{shared_rabbitmq.port}", f":{proxy.port}")
        with stage.worker(broker=through):
            ended = threading.Event()

            def disturb():
                while not ended.wait(0.3):
                    proxy.cut()

            disturber = threading.Thread(target=disturb)
            disturber.start()
            try:
                for key in keys:
                    stage.send("note", key)
                    time.sleep(0.004)
                wait_until(lambda: len(stage.effects.count("ran")) > TASKS // 2, 40)
            finally:
                ended.set()
                disturber.join()
            wait_until_all_ran(stage, keys)
            assert max(stage.effects.count("ran").values()) == 1
            assert stage.dead() == []


def readiness(port):
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/readyz?verbose", timeout=5) as answer:
        return answer.read().decode()
    return ""


def test_nothing_waits_behind_a_slow_task_and_the_idle_slot_shows_that_it_listens(rabbitmq_url, tmp_path):
    keys, port = [f"k{n}" for n in range(120)], free_port()
    results, options = f"sqlite:///{tmp_path}/results.sqlite3", [f"--http-port={port}"]
    with Stage(tmp_path, rabbitmq_url, results) as stage, stage.worker(options=options):
        stage.send_many("note", keys[:20])  # from now on a slot would hold many of these
        wait_until_all_ran(stage, keys[:20])
        stage.send_many("note", keys[20:70])
        slow = stage.send("hold", "slow", "gate")
        stage.send_many("note", keys[70:])
        wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 40, lambda: missing(stage, keys))
        wait_until(lambda: "asked for messages" in readiness(port), 20)
        stage.effects.open_gate("gate")
        assert slow.get(timeout=20) == "slow"
        assert set(stage.effects.count("ran").values()) == {1}


def test_a_partition_during_a_task_neither_doubles_nor_loses_it(shared_rabbitmq, rabbitmq_url, tmp_path):
    """The server gives the cut-off node's messages to others while the bodies go on."""
    results = f"sqlite:///{tmp_path}/results.sqlite3"
    quick = {"broker_transport_options": {"read_timeout": 1.0, "connect_timeout": 1.0}}
    with FaultProxy(shared_rabbitmq.port) as proxy, Stage(tmp_path, rabbitmq_url, results, conf=quick) as stage:
        through = rabbitmq_url.replace(f":{shared_rabbitmq.port}", f":{proxy.port}")
        with stage.worker(broker=through, name="far") as far:
            early, late = stage.send("hold", "early", "gate"), stage.send("hold_late", "late", "gate")
            stage.wait_for("started", "early")
            stage.wait_for("started", "late")
            with stage.worker(name="near"):
                proxy.refuse()
                shared_rabbitmq.close_connections()
                assert [each.get(timeout=20) for each in stage.send_many("note", ["a", "b"])] == ["a", "b"]
                stage.effects.open_gate("gate")
                stage.wait_for("ran", "early")
                stage.wait_for("ran", "late")
                proxy.resume()
                assert early.get(timeout=20) == "early"
                assert late.get(timeout=20) == "late"
                stage.wait_until_drained()
            assert "Traceback" not in far.log()
        assert stage.effects.count("started") == {"early": 1, "late": 1}
        assert stage.dead() == []


def test_a_server_that_is_away_costs_a_producer_its_patience_and_no_more(shared_rabbitmq, rabbitmq_url, tmp_path):
    with FaultProxy(shared_rabbitmq.port) as proxy:
        through = rabbitmq_url.replace(f":{shared_rabbitmq.port}", f":{proxy.port}")
        with Stage(tmp_path, through, f"sqlite:///{tmp_path}/results.sqlite3") as stage:
            stage.send("note", "first")
            proxy.refuse()
            started = time.monotonic()
            with pytest.raises(OperationalError, match="Gave up sending"):
                stage.send("note", "refused")
            assert time.monotonic() - started < 3
            proxy.resume()
            stage.send("note", "after")
            assert stage.broker.depth(["celery"])[0].ready == 2


def test_a_task_may_run_longer_than_the_server_waits_for_its_acknowledgement(shared_rabbitmq, rabbitmq_url, tmp_path):
    """RabbitMQ 3.12 closes a channel whose oldest delivery is half an hour old, and gives the delivery to others."""
    shared_rabbitmq.eval(
        "application:set_env(rabbit, consumer_timeout, 500), application:set_env(rabbit, channel_tick_interval, 200)."
    )
    try:
        with Stage(tmp_path, rabbitmq_url, f"sqlite:///{tmp_path}/results.sqlite3") as stage, stage.worker():
            long = stage.send("hold_late", "long", "gate")
            stage.wait_for("started", "long")
            wait_until(lambda: stage.broker.depth(["celery"])[0].ready == 1, 15, "the server did not take it back")
            assert [each.get(timeout=20) for each in stage.send_many("note", ["a", "b"])] == ["a", "b"]
            stage.effects.open_gate("gate")
            assert long.get(timeout=15) == "long"
            stage.wait_until_drained()
            assert stage.effects.count("started") == {"long": 1}
    finally:
        shared_rabbitmq.eval(
            "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, channel_tick_interval, 60000)."
        )
