"""A RabbitMQ cluster that loses nodes, one after another, as in a rolling restart that nobody has announced."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import wait_until
from tests.server_rabbitmq_cluster import RabbitCluster
from tests.workers import Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUORUM = {"task_default_queue_type": "quorum", "broker_transport_options": {"connect_timeout": 1.0}}


@pytest.fixture(scope="module")
def cluster():
    with RabbitCluster() as cluster:
        yield cluster


def work_through(stage, name):
    """Send one by one, all at once and for later; wait for all of it."""
    keys = [f"{name}-{number}" for number in range(30)]
    sent = [stage.send("note_late", key) for key in keys[:10]]
    sent += [stage.send("note_late", key, countdown=1) for key in keys[10:20]]
    sent += stage.send_many("note_late", keys[20:])
    assert [each.get(timeout=60) for each in sent] == keys
    return keys


def test_work_goes_on_when_any_node_is_killed(cluster, redis_url, tmp_path):
    conf = {**QUORUM, "worker_enable_remote_control": False}
    with Stage(tmp_path, cluster.url, redis_url, conf=conf) as stage, stage.worker(concurrency=2) as worker:
        held = stage.send("hold_late", "held", "gate")
        stage.wait_for("started", "held")
        keys = work_through(stage, "before")
        for number in (0, 1):
            later = [f"waiting-{number}-{each}" for each in range(10)]
            waiting = [stage.send("note_late", key, countdown=3) for key in later]
            cluster.nodes[number].kill()
            keys += work_through(stage, f"without-{number}")
            assert [each.get(timeout=60) for each in waiting] == later
            keys += later
            cluster.nodes[number].start()
            wait_until(cluster.is_whole, 60)
        stage.effects.open_gate("gate")
        assert held.get(timeout=60) == "held"
        stage.wait_until_drained(60)
        assert stage.dead() == []
        assert worker.stop() == 0
    assert stage.effects.count("started") == {"held": 1}
    assert stage.effects.count("ran") == dict.fromkeys(["held", *keys], 1)


def test_a_slot_that_dies_with_a_node_is_rescued(cluster, redis_url, tmp_path):
    with Stage(tmp_path, cluster.url, redis_url, conf=QUORUM) as stage, stage.worker(concurrency=1) as worker:
        sent = stage.send("hold_late", "doomed", "gate")
        (first,) = stage.wait_for("started", "doomed")
        cluster.nodes[0].kill()
        os.kill(first.pid, signal.SIGKILL)
        again = stage.wait_for("started", "doomed", times=2, timeout=60)[1]
        assert again.pid != first.pid
        stage.effects.open_gate("gate")
        assert sent.get(timeout=60) == "doomed"
        assert worker.stop() == 0
    cluster.nodes[0].start()
    wait_until(cluster.is_whole, 60)


def test_a_classic_queue_whose_node_is_down_is_said_to_be_away_and_not_full(cluster, redis_url, tmp_path):
    classic = {"broker_transport_options": {"connect_timeout": 1.0, "read_timeout": 2.0}}
    with Stage(tmp_path, cluster.nodes[2].url, redis_url, conf=classic) as near:
        near.send("note_late", "there", queue="plain")
    with Stage(tmp_path, cluster.nodes[1].url, redis_url, conf=classic) as far:
        far.send("note_late", "there", queue="plain")
        cluster.nodes[2].kill()
        with pytest.raises(Exception, match=r"plain.*is down or inaccessible") as refused:
            far.send("note_late", "away", queue="plain")
        assert "no room" not in str(refused.value)
        cluster.nodes[2].start()
        wait_until(cluster.is_whole, 60)
        far.send("note_late", "there", queue="plain")
