"""Amazon SQS, against moto's server: leases that are extended, delays in the queue, FIFO and predefined queues."""

from __future__ import annotations

import itertools
import time

import pytest

from celeriac import Celery
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.server_sqs import REGION, SQSServer
from tests.workers import Stage

APP = "tests.apps.forms"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server():
    with SQSServer() as server:
        yield server


@pytest.fixture
def options():
    """Transport options that give the test queues of its own."""
    return {"region": REGION, "is_secure": False, "queue_name_prefix": f"t{next(_numbers)}-", "polling_interval": 0.1}


def stage_on(server, tmp_path, options, **conf):
    conf = {"broker_transport_options": options, **conf}
    return Stage(tmp_path, server.url, f"sqlite:///{tmp_path}/results.sqlite3", app=APP, conf=conf)


def journals_in(tmp_path):
    return {"TMPDIR": str(tmp_path)}


def test_delays_long_tasks_dead_letters_and_killed_processes(server, options, tmp_path):
    """All at once on one worker: starting one takes seconds.  The queue gives a message away again after three."""
    options["visibility_timeout"] = 3
    conf = {"celeriac_max_crashes": 1}
    with stage_on(server, tmp_path, options, **conf) as stage, stage.worker(env=journals_in(tmp_path)) as worker:
        long = stage.send("sleepy_late", "long", 5)
        results = stage.send_many("note", [f"k{n}" for n in range(10)])
        sent = time.time()
        later = stage.send("note_late", "later", countdown=2)
        doomed = stage.send("doomed_late", "doomed")
        stage.send("unheard_of", "k")
        assert [result.get(timeout=30) for result in results] == [f"k{n}" for n in range(10)]
        assert later.get(timeout=30) == "later"
        assert stage.effects.of("ran", "later")[0].at - sent >= 2
        assert long.get(timeout=30) == "long"
        with pytest.raises(Exception, match="killed its worker process 2 times"):
            doomed.get(timeout=30)
        assert wait_until(lambda: {letter.reason for letter in stage.dead()} == {"unknown_task", "poison"}, 10)
        assert "Remote control and heartbeats are off" in worker.log()
        wait_until(lambda: hidden(server, options) == 0, 10, "messages are left in the queue")
        assert stage.effects.count("started") == {"long": 1, "doomed": 2}
        assert worker.stop() == 0


def hidden(server, options):
    client = server.client()
    url = client.get_queue_url(QueueName=f"{options['queue_name_prefix']}celery")["QueueUrl"]
    names = ["ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessages"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def test_fifo_and_predefined_queues(server, options, tmp_path):
    client = server.client()
    name = f"orders{next(_numbers)}.fifo"
    url = client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    dead = client.create_queue(QueueName=f"dead{next(_numbers)}")["QueueUrl"]
    predefined = {
        queue: {"url": address, "access_key_id": "key", "secret_access_key": "secret", "region": REGION}
        for queue, address in ((name, url), ("celeriac-dead", dead))
    }
    options = {"region": REGION, "is_secure": False, "polling_interval": 0.1, "predefined_queues": predefined}
    with (
        stage_on(server, tmp_path, options, task_default_queue=name) as stage,
        stage.worker(env=journals_in(tmp_path), concurrency=1),
    ):
        results = [stage.send("note", f"k{n}", MessageGroupId="g") for n in range(6)]
        assert [result.get(timeout=30) for result in results] == [f"k{n}" for n in range(6)]
    assert [effect.key for effect in stage.effects.of("ran")] == [f"k{n}" for n in range(6)]


def test_a_server_that_is_not_there_is_said_so(tmp_path):
    app = Celery("sqs", broker="sqs://key:secret@127.0.0.1:9//", set_as_current=False)
    app.conf.broker_transport_options = {"region": REGION, "is_secure": False, "client-config": {"connect_timeout": 1}}
    broker = connect.open_broker(app)
    with pytest.raises(Exception, match="is not available"):
        broker.depth(["celery"])
    broker.close()
