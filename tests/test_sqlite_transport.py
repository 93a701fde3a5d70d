"""The kombu transport of the embedded default."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue

import celeriac
from celeriac import Celery
from celeriac.compat import connect
from celeriac.compat.transport import mailboxes
from celeriac.compat.transport import store as store_transport
from celeriac.compat.transport.sqlite_mailboxes import SQLiteMailboxes
from celeriac.errors import StoreUnavailable
from tests.helpers import wait_until


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
def app(url):
    app = Celery("x", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = "work"
    yield app
    app.close()


@pytest.fixture
def boxes(tmp_path):
    found = SQLiteMailboxes(tmp_path / "store.sqlite3")
    yield found
    found.file.close()


def listen(connection, queue):
    """A consumer of one queue, and the list of what it got."""
    got = []
    consumer = Consumer(connection.channel(), [queue], callbacks=[lambda body, _message: got.append(body)], no_ack=True)
    consumer.consume()
    return got


def drain(connection, timeout=5.0):
    connection.drain_events(timeout=timeout)


def mailbox(name, exchange, routing_key=""):
    return Queue(name, exchange, routing_key=routing_key, durable=False, auto_delete=True)


def publish(url, exchange, body, routing_key=""):
    with Connection(url) as connection:
        Producer(connection.channel(), exchange).publish(body, routing_key=routing_key, declare=[exchange])


def test_what_is_sent_to_a_fanout_exchange_reaches_every_listener(url):
    news = Exchange("news", "fanout", durable=False)
    with Connection(url) as one, Connection(url) as two:
        boxes = [listen(one, mailbox("one", news)), listen(two, mailbox("two", news))]
        publish(url, news, {"n": 1})
        drain(one)
        drain(two)
    assert boxes == [[{"n": 1}], [{"n": 1}]]


@pytest.mark.parametrize(("key", "heard"), [("task.sent", True), ("worker.online", False)])
def test_a_topic_exchange_goes_by_the_pattern(url, key, heard):
    events = Exchange("events", "topic")
    with Connection(url) as connection:
        got = listen(connection, mailbox("monitor", events, "task.#"))
        publish(url, events, "x", routing_key=key)
        if heard:
            drain(connection)
        else:
            with pytest.raises(socket.timeout):
                drain(connection, 0.1)
    assert got == (["x"] if heard else [])


def test_a_listener_is_woken_and_does_not_poll(url):
    news = Exchange("news", "fanout", durable=False)
    with Connection(url) as connection:
        got = listen(connection, mailbox("one", news))
        timer = threading.Timer(0.5, publish, (url, news, "x"))
        started = time.monotonic()
        timer.start()
        drain(connection)
        assert time.monotonic() - started < 1.0
        timer.join()
    assert got == ["x"]


def test_waiting_ends_with_a_timeout(url):
    with Connection(url) as connection:
        listen(connection, mailbox("one", Exchange("news", "fanout")))
        started = time.monotonic()
        with pytest.raises(socket.timeout):
            drain(connection, 0.2)
        assert 0.15 < time.monotonic() - started < 2


def test_waiting_costs_next_to_nothing(url):
    with Connection(url) as connection:
        listen(connection, mailbox("one", Exchange("news", "fanout")))
        used = time.process_time()
        with pytest.raises(socket.timeout):
            drain(connection, 2.0)
        assert time.process_time() - used < 0.1


def test_task_queues_are_the_brokers_own(url, app):
    @app.task(name="t", shared=False)
    def task():
        """Never run."""

    for _ in range(3):
        task.delay()
    task.apply_async(countdown=600)
    with app.connection() as connection:
        channel = connection.default_channel
        assert channel.queue_declare("work", durable=True).message_count == 3
        message = channel.basic_get("work", no_ack=True)
        assert message.headers["task"] == "t"
        assert channel.queue_declare("work", durable=True).message_count == 2
        assert app.control.purge() == 3
        assert channel.basic_get("work") is None


def test_a_task_message_that_is_not_acknowledged_goes_back_when_the_channel_is_closed(url, app):
    app.send_task("t")
    with app.connection() as connection:
        assert connection.default_channel.basic_get("work") is not None
    with app.connection() as connection:
        assert connection.default_channel.basic_get("work", no_ack=True).headers["task"] == "t"


def test_what_kombu_sends_to_a_task_queue_is_leased_by_the_broker(url, app):
    with app.connection() as connection:
        Producer(connection).publish({"a": 1}, routing_key="work", priority=3)
    broker = connect.open_broker(app)
    assert broker.depth(["work"])[0].ready == 1
    broker.close()


def test_bindings_are_listed_wherever_they_were_made(url, app):
    with app.connection() as connection:
        app.amqp.TaskConsumer(connection).declare()
    with app.connection() as connection:
        app.amqp.TaskConsumer(connection).declare()
        assert connection.manager.get_bindings() == [
            {"destination": "work", "source": "work", "routing_key": "work"}
        ]  # fmt: skip


def test_a_mailbox_is_forgotten_when_its_listener_stays_away(boxes, monkeypatch):
    monkeypatch.setattr(mailboxes, "SHORTEST_IDLE", 0.0)
    boxes.open("gone", 0.05, None)
    boxes.put(["gone"], b"x")
    wait_until(lambda: boxes.open("other", 60, None) or not boxes.is_open("gone"))
    assert boxes.count("gone") == 0


def test_a_listener_whose_mailbox_is_gone_is_told_and_can_begin_anew(url, boxes, monkeypatch):
    news = Exchange("news", "fanout", durable=False)
    monkeypatch.setattr(store_transport, "SEEN_EVERY", 0.0)
    with Connection(url) as connection:
        listen(connection, mailbox("one", news))
        boxes.close("one")
        with pytest.raises(StoreUnavailable, match="away for too long"):
            drain(connection)
        assert issubclass(StoreUnavailable, connection.connection_errors)
    with Connection(url) as connection:
        got = listen(connection, mailbox("one", news))
        publish(url, news, "x")
        drain(connection)
    assert got == ["x"]


def test_messages_for_a_listener_that_hangs_do_not_pile_up(boxes):
    boxes.open("slow", None, 0.05)
    boxes.put(["slow"], b"old")
    time_to_live_is_over = time.time() + 0.1
    wait_until(lambda: time.time() > time_to_live_is_over)
    boxes.put(["slow"], b"new")
    assert boxes.count("slow") == 1
    assert boxes.take("slow") == b"new"
    assert boxes.take("slow") is None


def test_names_that_are_no_mailbox_are_handed_back(boxes):
    boxes.open("one", None, None)
    assert boxes.put(["one", "work"], b"x") == ["work"]


def test_a_url_without_a_file_is_refused():
    with pytest.raises(celeriac.CeleriacError, match="names no file"), Connection("sqlite://") as connection:
        connection.channel()
