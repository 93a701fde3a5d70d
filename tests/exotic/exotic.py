"""What takes a Java server: Kafka as a broker, Cassandra as a result store.  Not part of `make test`: see `make test-exotic`."""

from __future__ import annotations

import pytest
from celery import chord, group

from tests.exotic.servers import cassandra, kafka
from tests.workers import Stage

APP = "tests.apps.forms"


@pytest.mark.timeout(150)
def test_kafka(tmp_path):
    with kafka() as address:
        url = f"confluentkafka://{address}"
        results = f"sqlite:///{tmp_path}/results.sqlite3"
        with (
            Stage(tmp_path, url, results, app=APP) as stage,
            stage.worker(concurrency=1, env={"TMPDIR": str(tmp_path)}) as worker,
        ):
            sent = [stage.send("note_late", f"k{n}") for n in range(20)]
            later = stage.send("note", "later", countdown=1)
            assert [result.get(timeout=60) for result in sent] == [f"k{n}" for n in range(20)]
            assert later.get(timeout=30) == "later"
            assert worker.stop() == 0
        assert stage.effects.count("ran") == {f"k{n}": 1 for n in range(20)} | {"later": 1}


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore")  # the driver's
def test_cassandra(tmp_path, redis_url):
    pytest.importorskip("cassandra", reason="no cassandra-driver; `make test-exotic` installs it")
    with cassandra() as port:
        keyspace(port)
        conf = {
            "cassandra_servers": ["127.0.0.1"],
            "cassandra_port": port,
            "cassandra_keyspace": "celery",
            "cassandra_table": "tasks",
            "cassandra_read_consistency": "ONE",
            "cassandra_write_consistency": "ONE",
            "result_chord_retry_interval": 0.2,
        }
        with Stage(tmp_path, redis_url, "cassandra://", app=APP, conf=conf) as stage, stage.worker():
            assert stage.send("note_late", "k").get(timeout=30, interval=0.05) == "k"
            header = group(stage.signature("note_late", f"c{n}") for n in range(3))
            assert chord(header, stage.signature("note"))().get(timeout=30, interval=0.05) == ["c0", "c1", "c2"]
            with pytest.raises(Exception, match="killed its worker"):
                stage.send("doomed_late", "d").get(timeout=30, interval=0.05)


def keyspace(port):
    from cassandra.cluster import Cluster  # noqa: PLC0415 - only `make test-exotic` installs it

    with Cluster(["127.0.0.1"], port=port) as cluster, cluster.connect() as session:
        session.execute(
            "CREATE KEYSPACE celery WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
