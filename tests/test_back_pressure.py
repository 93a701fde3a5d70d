"""Bounded queues, deadlines and buffers, as senders meet them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from kombu import Queue
from kombu.exceptions import OperationalError

import celeriac
from celeriac import Celery
from celeriac.compat import connect, publish_buffer
from celeriac.compat.back_pressure import silent_queues
from celeriac.compat.envelope import decode
from celeriac.errors import ConfigurationError
from tests.apps.bounded import BOUND, THREADS
from tests.apps.bounded import app as bounded
from tests.helpers import wait_until
from tests.stages import STORES
from tests.workers import ROOT, Stage

BULK = 3


@pytest.fixture(params=["sqlite", "redis"])
def broker_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    return request.getfixturevalue(f"{request.param}_url")


everywhere = pytest.mark.parametrize("broker_url", STORES, indirect=True)


def make_app(url, **conf):
    app = Celery("bounded", broker=url, set_as_current=False)
    app.conf.update(task_queues=[Queue("bulk", max_length=BULK), Queue("celery")], task_ignore_result=True, **conf)

    @app.task(name="bulky", shared=False)
    def bulky(n=0):
        return n

    return app, bulky


@pytest.fixture
def made(broker_url):
    app, bulky = make_app(broker_url, task_default_queue="bulk", celeriac_queue_full="raise")
    yield app, bulky
    connect.producer(app).close()


def lying_in(app, queue="bulk"):
    """Task ids in a queue, the next one first."""
    broker = connect.open_broker(app)
    broker.register("reader", [queue], 60)
    held = broker.lease("reader", [queue], 1000)
    broker.release("reader", [each.tag for each in held])
    broker.unregister("reader")
    broker.close()
    return [decode(each.raw)["headers"]["id"] for each in held]


def send_together(app, send):
    with app.batch():
        send()


# -- full queues -------------------------------------------------------------------------------------------------------


def test_a_full_queue_raises_what_celerys_users_catch_already(made):
    app, bulky = made
    sent = [bulky.delay(n).id for n in range(BULK)]

    with pytest.raises(
        celeriac.QueueFull, match="bulk has no room for another message: it holds 3 and takes at most 3"
    ):
        bulky.delay(9)
    with pytest.raises(OperationalError):
        bulky.apply_async((9,), countdown=60)
    with pytest.raises(celeriac.QueueFull):
        send_together(app, lambda: (bulky.apply_async((9,), queue="celery"), bulky.delay(9)))

    assert lying_in(app) == sent
    assert lying_in(app, "celery") == []


def test_a_sender_may_wait_for_room_and_no_longer_than_it_says(made):
    app, bulky = made
    for n in range(BULK):
        bulky.delay(n)
    started = time.monotonic()
    with pytest.raises(celeriac.QueueFull):
        bulky.apply_async((9,), queue_full="block", queue_full_timeout=0.3)
    assert 0.25 < time.monotonic() - started < 2

    waiting = threading.Thread(target=bulky.apply_async, args=((10,),), kwargs={"queue_full_timeout": 20})
    waiting.start()
    connect.open_broker(app).purge("bulk")
    waiting.join(10)

    assert not waiting.is_alive()
    assert len(lying_in(app)) == 1


@everywhere
def test_the_oldest_may_make_room(made):
    app, bulky = made
    app.conf.celeriac_queue_full = "drop_oldest"
    sent = [bulky.delay(n).id for n in range(BULK + 2)]

    assert lying_in(app) == sent[2:]
    with closing(connect.open_broker(app)) as broker:
        dead = wait_until(lambda: len(found := broker.dead_letters()) == 2 and found, 10)
        assert {(letter.task_id, letter.task, letter.queue, letter.reason) for letter in dead} == {
            (sent[0], "bulky", "bulk", "overflow"),
            (sent[1], "bulky", "bulk", "overflow"),
        }
        broker.purge("bulk")
        assert all(broker.replay(letter.id) for letter in dead)
        assert not broker.replay(dead[0].id)
        wait_until(lambda: broker.depth(["bulk"])[0].ready == 2, 10)
    assert set(lying_in(app)) == set(sent[:2])


def test_rabbitmq_does_with_what_is_too_much_as_its_queue_was_declared_and_a_call_that_says_otherwise_is_refused(
    rabbitmq_url, tmp_path
):
    app, bulky = make_app(rabbitmq_url)
    with pytest.raises(ConfigurationError, match=r"declared .the oldest go without a word.* set celeriac_queue_full"):
        bulky.apply_async(queue="bulk", queue_full="block")
    assert silent_queues(app) == ["bulk"]
    app.conf.celeriac_queue_full = "block"
    assert silent_queues(app) == []
    bulky.apply_async(queue="bulk", queue_full="raise")
    with pytest.raises(ConfigurationError, match=r"declared .reject-publish.* queue_full='drop_oldest'"):
        bulky.apply_async(queue="bulk", queue_full="drop_oldest")
    connect.producer(app).close()


def test_a_queue_says_in_rabbitmqs_words_what_becomes_of_what_is_too_much(broker_url):
    app, bulky = make_app(broker_url, celeriac_queue_full="drop_oldest")
    app.conf.task_queues = [
        Queue("refusing", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"}),
        Queue("dropping", queue_arguments={"x-max-length": 1, "x-overflow": "drop-head"}),
        Queue("odd", queue_arguments={"x-max-length": 1, "x-overflow": "drop-haed"}),
    ]
    for _ in range(2):
        bulky.apply_async(queue="dropping")
    bulky.apply_async(queue="refusing")

    with pytest.raises(celeriac.QueueFull):
        bulky.apply_async(queue="refusing")
    with pytest.raises(ConfigurationError, match=r"drop-head, .*not 'drop-haed'"):
        bulky.apply_async(queue="odd")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queue_full": "blok"}, "queue_full is one of raise, block, drop_oldest, not 'blok'"),
        ({"queue_full": "drop_oldest", "queue_full_timeout": 3}, "is for queue_full=\"block\", not 'drop_oldest'"),
        ({"publish_timeout": 0}, "publish_timeout is a number of seconds above 0, not 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(made, options, text):
    with pytest.raises(ConfigurationError, match=text):
        made[1].apply_async(**options)


def test_a_task_that_is_running_retries_into_a_full_queue(broker_url, tmp_path):
    """What follows a run is never refused: its retry, and the next link of its chain."""
    with Stage(tmp_path, broker_url, broker_url) as stage:
        stage.client.conf.task_queues = [Queue("celery", max_length=1)]
        chain = stage.signature("note", "first") | stage.signature("note", "second", immutable=True)
        with stage.worker(concurrency=1):
            stage.send("hold", "x", "gate")
            stage.wait_for("started", "x")
            chain.apply_async()  # the queue is full now
            stage.effects.open_gate("gate")
            stage.wait_for("ran", "second")


@everywhere
@pytest.mark.timeout(120)
def test_fifty_producers_never_fill_a_queue_past_its_bound(broker_url, tmp_path):
    each, processes = 4, 2
    with Stage(tmp_path, broker_url, app="tests.apps.bounded") as stage:
        stage.client.conf.update(task_queues=bounded.conf.task_queues, celeriac_queue_full="block")
        worker = stage.worker(concurrency=2, options=["-Q", "bulk"])
        environment = {**os.environ, "TEST_BROKER": broker_url, "PYTHONPATH": str(ROOT)}
        commands = [[sys.executable, "-m", "tests.apps.bounded", f"p{n}", str(each)] for n in range(processes)]
        producers = [subprocess.Popen(command, env=environment, cwd=tmp_path) for command in commands]
        lengths = []

        def look():
            depth = stage.broker.depth(["bulk"])[0]
            lengths.append(depth.ready + depth.scheduled)
            return lengths[-1]

        try:
            wait_until(lambda: look() >= BOUND, 40)  # nobody drains it yet
            with worker:
                wait_until(lambda: look() >= 0 and all(p.poll() is not None for p in producers), 60, interval=0.002)
                wait_until(lambda: look() == 0 and stage.broker.leased_count() == 0, 20)
        finally:
            for producer in producers:
                producer.kill()
                producer.wait()
        assert [producer.returncode for producer in producers] == [0] * processes
        assert max(lengths) == BOUND
        assert set(stage.effects.count("ran").values()) == {1}
        assert len(stage.effects.count("ran")) == each * processes * THREADS


# -- event loops -------------------------------------------------------------------------------------------------------


@everywhere
def test_senders_in_an_event_loop_wait_for_room_without_blocking_it(made):
    app, bulky = made

    async def main():
        ids = [(await bulky.adelay(n)).id for n in range(BULK)]
        waiting = [asyncio.create_task(bulky.aapply_async((n,), queue_full="block")) for n in range(60)]
        gaps = []
        for _ in range(20):
            started = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - started)
        with pytest.raises(celeriac.QueueFull):
            await bulky.aapply_async((9,))
        assert not any(task.done() for task in waiting)
        broker = await asyncio.to_thread(connect.open_broker, app)
        while not all(task.done() for task in waiting):
            await asyncio.to_thread(broker.purge, "bulk")
        broker.close()
        return ids, [task.result().id for task in waiting], sorted(gaps)[len(gaps) // 2]

    ids, more, gap = asyncio.run(main())

    assert len(set(ids + more)) == BULK + 60
    assert gap < 0.1


# -- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_silent_broker_costs_a_sender_its_deadline_and_no_more(proxy, seconds):
    _app, bulky = make_app(proxy.url, celeriac_publish_timeout=60)
    bulky.delay()
    proxy.black_hole()
    started = time.monotonic()

    with pytest.raises(OperationalError, match=r"Gave up sending after \d attempts? in"):
        bulky.apply_async(publish_timeout=seconds, retry_policy={"max_retries": None, "interval_step": 0.01})

    assert time.monotonic() - started < seconds + 0.6
    proxy.resume()


# -- the buffer --------------------------------------------------------------------------------------------------------


def test_messages_wait_in_memory_for_a_broker_that_is_away_and_are_sent_in_order(proxy, redis_url):
    app, bulky = make_app(proxy.url, celeriac_publish_buffer=5, celeriac_publish_timeout=0.5, task_publish_retry=False)
    first = bulky.delay().id
    proxy.refuse()
    proxy.cut()
    kept = [bulky.delay(n).id for n in range(5)]

    with pytest.raises(OperationalError, match=r"buffer \(celeriac_publish_buffer = 5\) has no room: 5 messages wait"):
        bulky.delay()
    proxy.resume()

    wait_until(lambda: not len(publish_buffer.of(app)), 10)
    last = bulky.delay().id
    assert lying_in(make_app(redis_url)[0], "celery") == [first, *kept, last]


def test_a_broker_that_is_full_of_one_queue_keeps_the_order_of_what_was_buffered(proxy, redis_url):
    app, bulky = make_app(proxy.url, celeriac_publish_buffer=9, celeriac_publish_timeout=0.5, task_publish_retry=False)
    proxy.refuse()
    kept = [bulky.apply_async(queue="bulk").id for _ in range(BULK + 1)]
    proxy.resume()
    other = make_app(redis_url)[0]

    wait_until(lambda: len(publish_buffer.of(app)) == 1, 10)
    assert lying_in(other) == kept[:BULK]
    connect.open_broker(other).purge("bulk")

    wait_until(lambda: not len(publish_buffer.of(app)), 10)
    assert lying_in(other) == kept[BULK:]


PROGRAM = """
import os, sys, time
from tests.test_back_pressure import make_app
app, bulky = make_app(sys.argv[1], celeriac_publish_buffer=9, celeriac_publish_timeout=0.3, task_publish_retry=False,
                      celeriac_publish_buffer_exit_timeout=float(sys.argv[2]))
for n in range(3):
    print(bulky.delay(n).id)
sys.stdout.flush()
if sys.argv[3] == "fork" and not os.fork():
    os._exit(len(__import__("celeriac.compat.publish_buffer").compat.publish_buffer.of(app)))
"""


def run_program(url, seconds, how="plainly"):
    command = [sys.executable, "-c", PROGRAM, url, str(seconds), how]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_process_that_ends_names_each_message_that_it_could_not_send(proxy):
    proxy.refuse()

    ids, errors = (text.splitlines() for text in run_program(proxy.url, 0.3).communicate(timeout=30))

    lost = [line for line in errors if "LOST" in line]
    assert all(f"bulky[{id}] for queue celery was not sent" in line for id, line in zip(ids, lost[:3], strict=True))
    assert "3 messages in all" in lost[3]


def test_a_process_that_ends_waits_a_while_for_its_broker(proxy, redis_url):
    proxy.refuse()
    program = run_program(proxy.url, 20, "fork")
    ids = [program.stdout.readline().strip() for _ in range(3)]
    proxy.resume()

    _, errors = program.communicate(timeout=30)

    assert "LOST" not in errors
    assert lying_in(make_app(redis_url)[0], "celery") == ids  # and the forked child, which has no part in it, sent none
