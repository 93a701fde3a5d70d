"""RabbitMQ shared with stock Celery: its producers, its workers, its queues, its rpc results."""

from __future__ import annotations

import time
from contextlib import closing, suppress

import pytest
from celery import chain
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from celeriac import Celery
from celeriac.compat import connect
from celeriac.compat.connect_rabbitmq import app_options
from celeriac.compat.envelope import decode
from celeriac.errors import ConfigurationError
from tests.apps.rabbit import QUEUES, make_app
from tests.conformance.kits import owner_of
from tests.helpers import wait_until
from tests.workers import Worker, close_results

MODULE = "tests.apps.rabbit"


class StockWorker(Worker):
    """The same with ``celery`` for ``celeriac``."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._command[2] = "celery"
        self._command = [word.replace("--pool=processes", "--pool=prefork") for word in self._command]
        self._command += ["--without-gossip", "--without-mingle"]
        self._environment["TEST_STOCK"] = "yes"


class Lab:
    """Apps of both kinds on one virtual host, and workers of both kinds."""

    def __init__(self, url, directory, backend):
        self.url = url
        self.directory = directory
        self.backend = backend
        self.stock = make_app(True, url, backend)
        self.ours = make_app(False, url, backend)
        self.broker = connect.open_broker(self.ours)

    def worker(self, kind, *queues, name="one", **options):
        wanted = [f"--queues={','.join(queues)}"] if queues else ["--queues=celery"]
        return kind(
            self.directory, self.url, self.backend, app=MODULE, name=name, concurrency=1, options=wanted, **options
        )

    def send(self, app, task, *args, **options):
        return app.send_task(f"{MODULE}.{task}", args, **options)

    def close(self):
        self.broker.close()
        for app in (self.stock, self.ours):
            with suppress(AttributeError):  # rpc:// waits for results on a connection of its own
                app.backend.result_consumer.stop()
            close_results(app)
            app.pool.force_close_all()
            app.close()
        connect.producer(self.ours).close()


@pytest.fixture
def lab(rabbitmq_url, tmp_path, redis_url):
    with closing(Lab(rabbitmq_url, tmp_path, redis_url)) as lab:
        yield lab


@pytest.mark.parametrize(("kind", "sender"), [(Worker, "stock"), (StockWorker, "ours")])
def test_stock_and_ours_understand_each_other(lab, kind, sender):
    app = getattr(lab, sender)
    with lab.worker(kind, "celery", "urgent"):
        sent = lab.send(app, "tell", "plain", headers={"colour": "red"}, task_id="id-1")
        told = sent.get(timeout=15)
        assert (told["key"], told["colour"], told["correlation_id"]) == ("plain", "red", "id-1")
        assert told["routing_key"] == "celery"
        assert lab.send(app, "tell", "first", queue="urgent", priority=7).get(timeout=15)["priority"] == 7
        assert lab.send(app, "fail_once", "again").get(timeout=15) == "one@test"
        started = time.time()
        assert lab.send(app, "tell", "later", countdown=1).get(timeout=15)["key"] == "later"
        assert time.time() - started >= 0.9
        steps = [app.signature(f"{MODULE}.add", (1, 2)), app.signature(f"{MODULE}.add", (10,))]
        assert chain(steps, app=app).apply_async().get(timeout=15) == 13
        lost = app.send_task(f"{MODULE}.tell", ("unsaid",), ignore_result=True)
        assert lost.id
    assert lab.broker.dead_count() == 0


def test_stock_and_ours_serve_one_queue_together(lab):
    keys = [f"k{n}" for n in range(120)]
    with lab.worker(Worker, name="ours") as ours, lab.worker(StockWorker, name="stock"):
        results = [lab.send((lab.stock, lab.ours)[n % 2], "tell", key) for n, key in enumerate(keys)]
        told = [result.get(timeout=20) for result in results]
        assert [each["key"] for each in told] == keys
        assert {each["worker"] for each in told} == {"ours@test", "stock@test"}
        assert set(ours.effects.count("ran").values()) == {1}
    assert lab.broker.dead_count() == 0


def test_what_a_stock_worker_had_taken_and_gave_back_runs(lab):
    """It is marked as delivered before, like what a dead worker of ours had started."""
    results = [lab.send(lab.ours, "tell", n) for n in range(30)]
    with Connection(lab.url) as connection:
        taken = []
        channel = connection.channel()
        channel.basic_qos(0, 20, False)
        with connection.Consumer(QUEUES[0](channel), channel=channel, on_message=taken.append, auto_declare=False):
            while len(taken) < 20:
                connection.drain_events(timeout=5)
    with lab.worker(Worker) as worker:
        assert [result.get(timeout=15)["key"] for result in results] == list(range(30))
        assert set(worker.effects.count("ran").values()) == {1}
    assert lab.broker.dead_count() == 0


def test_results_of_the_rpc_backend_come_from_our_worker(rabbitmq_url, tmp_path):
    with closing(Lab(rabbitmq_url, tmp_path, "rpc://")) as lab, lab.worker(Worker):
        for app in (lab.stock, lab.ours):
            assert lab.send(app, "add", 1, 2).get(timeout=15) == 3
        results = [lab.send(lab.ours, "add", n, n) for n in range(20)]
        assert [result.get(timeout=15) for result in results] == [2 * n for n in range(20)]


def test_exchanges_of_every_type_lead_where_they_should(lab):
    lab.broker.prepare([queue.name for queue in QUEUES[:5]])
    app = lab.ours
    lab.send(app, "tell", "image", exchange="media", exchange_type="topic", routing_key="media.image.png")
    lab.send(app, "tell", "video", exchange="media", exchange_type="topic", routing_key="media.video")
    lab.send(
        app, "tell", "red", exchange="labelled", exchange_type="headers", routing_key="-", headers={"colour": "red"}
    )
    lab.send(app, "tell", "direct", exchange="celery", exchange_type="direct", routing_key="celery")
    lab.send(app, "tell", "queue", queue="images")
    names = ["images", "all-media", "red", "celery"]
    assert [depth.ready for depth in lab.broker.depth(names)] == [2, 3, 1, 1]
    with lab.worker(Worker, *names) as worker:
        wait_until(lambda: len(worker.effects.of("ran")) == 7, 20)
        assert worker.effects.count("ran") == {"image": 2, "video": 1, "red": 1, "direct": 1, "queue": 2}


def test_a_message_that_no_queue_would_get_is_an_error(lab):
    lab.broker.prepare(["images"])
    with pytest.raises(OperationalError, match=r"no queue is bound to exchange 'media' for routing key 'elsewhere'"):
        lab.send(lab.ours, "tell", "lost", exchange="media", exchange_type="topic", routing_key="elsewhere")


def test_a_full_queue_is_an_error_for_the_sender(lab):
    for n in range(2):
        lab.send(lab.ours, "tell", n, queue="short")
    with pytest.raises(OperationalError, match="short has no room"):
        lab.send(lab.ours, "tell", "too much", queue="short")
    assert lab.broker.depth(["short"])[0].ready == 2


def test_queues_are_declared_as_kombu_declares_them(lab):
    with Connection(lab.url) as connection, connection.channel() as channel:
        for queue in QUEUES[:4]:
            queue(channel).declare()
        lab.broker.prepare([queue.name for queue in QUEUES[:7]])
        for queue in QUEUES[:7]:
            queue(channel).declare()


def test_a_broadcast_reaches_every_worker(lab):
    one = lab.worker(Worker, "everybody", name="one", env={"TEST_BROADCAST": "bcast.one"})
    two = lab.worker(StockWorker, "everybody", name="two", env={"TEST_BROADCAST": "bcast.two"})
    with one, two:
        lab.send(lab.ours, "tell", "all", queue="everybody")
        wait_until(lambda: one.effects.count("ran") == {"all": 2}, 15)


def test_a_quorum_queue_serves_work_and_stock_producers_delay_in_the_broker(lab):
    with lab.worker(Worker, "quorum"):
        started = time.time()
        delayed = lab.send(lab.stock, "tell", "delayed", queue="quorum", countdown=2)
        with Connection(lab.url) as connection, connection.channel() as channel:
            # A stock producer does not wait for a confirm: the message may still be on its way.
            wait_until(lambda: channel.queue_declare("celery_delayed_1", passive=True).message_count == 1, 1.5)
        results = [lab.send(lab.ours, "tell", n, queue="quorum") for n in range(30)]
        assert [result.get(timeout=20)["key"] for result in results] == list(range(30))
        assert lab.send(lab.ours, "fail_once", "again", queue="quorum").get(timeout=20)
        assert delayed.get(timeout=20)["key"] == "delayed"
        assert time.time() - started >= 1.9


def test_what_was_delayed_tells_the_queue_that_it_came_from(lab):
    with lab.worker(Worker):
        for sender in (lab.stock, lab.ours):
            assert lab.send(sender, "tell", "later", countdown=0.05).get(timeout=20)["routing_key"] == "celery"


def test_what_expires_stays_in_its_queue_for_a_worker_to_say_so(lab):
    lab.send(lab.ours, "tell", "late", expires=0.001)
    owner = owner_of(lab.broker, ["celery"])
    (delivery,) = wait_until(lambda: lab.broker.lease(owner, ["celery"], 1))
    envelope = decode(delivery.raw)
    assert envelope["headers"]["expires"]
    assert "expiration" not in envelope["properties"]  # by which the server would drop it


def test_the_short_way_of_sending_makes_the_same_message(lab):
    def resize(photo, width=100):
        """Never runs."""

    task = lab.ours.task(resize, name="resize", ignore_result=True)
    sent = [
        task.delay("ünï %s", width=3),
        task.delay("ünï %s", width=3),
        task.apply_async(("ünï %s",), {"width": 3}, headers={}),
    ]
    owner = owner_of(lab.broker, ["celery"])
    short, again, long = (decode(delivery.raw) for delivery in lab.broker.lease(owner, ["celery"], 3))
    assert [each["headers"]["id"] for each in (short, again, long)] == [result.id for result in sent]
    for envelope in (short, again, long):
        task_id = envelope["headers"].pop("id")
        assert envelope["headers"].pop("root_id") == envelope["properties"].pop("correlation_id") == task_id
        assert time.time() - envelope["headers"].pop("celeriac-sent") < 60
    assert short == again == long


@pytest.mark.parametrize(
    ("conf", "kind"),
    [
        ({}, "classic"),
        ({"task_default_queue_type": "quorum"}, "quorum"),
        ({"task_queues": [Queue("a"), Queue("b", queue_arguments={"x-queue-type": "quorum"})]}, "quorum"),
        ({"task_queues": {"a": {"queue_arguments": {"x-queue-type": "quorum"}}}}, "quorum"),
        ({"broker_url": "amqp://a;amqp://b"}, "quorum"),
        ({"broker_url": "amqp://a;amqp://b", "broker_transport_options": {"own_queue_type": "classic"}}, "classic"),
    ],
)
def test_own_queues_survive_a_node_where_the_apps_do(conf, kind):
    app = Celery("apart", broker="amqp://localhost", set_as_current=False)
    app.conf.update(conf)
    assert app_options(app, app.conf.broker_url).queue_type == kind


def test_a_type_of_own_queues_that_there_is_not():
    app = Celery("apart", broker="amqp://localhost", set_as_current=False)
    app.conf.broker_transport_options = {"own_queue_type": "mirrored"}
    with pytest.raises(ConfigurationError, match=r"own_queue_type .* is classic or quorum, not 'mirrored'"):
        app_options(app, app.conf.broker_url)
