"""Kafka, against the mock cluster in Confluent's client, which any client can talk to."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from celeriac.compat import connect
from tests.helpers import wait_until
from tests.workers import Stage

APP = "tests.apps.forms"


@pytest.fixture
def address():
    """Host and port of a one-node cluster that lives as long as the object that made it."""
    cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1})
    brokers = wait_until(lambda: [str(each) for each in cluster.list_topics(timeout=5).brokers.values()], 10)
    yield brokers[0].split("/")[0]
    cluster.flush(1)


def test_tasks_late_ones_among_them(address, tmp_path):
    url = f"confluentkafka://{address}"
    conf = {"broker_transport_options": {"num_partitions": 2}}
    with (
        Stage(tmp_path, url, f"sqlite:///{tmp_path}/results.sqlite3", app=APP, conf=conf) as stage,
        stage.worker(concurrency=1, env={"TMPDIR": str(tmp_path)}),
    ):
        results = [stage.send("note_late", f"k{n}") for n in range(10)]
        later = stage.send("note", "later", countdown=1)
        assert [result.get(timeout=40) for result in results] == [f"k{n}" for n in range(10)]
        assert later.get(timeout=30) == "later"
    assert stage.effects.count("ran") == {f"k{n}": 1 for n in range(10)} | {"later": 1}
    assert connect.has_engine(url)
