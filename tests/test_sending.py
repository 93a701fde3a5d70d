"""Sending from where it is awkward: signal handlers, forked servers, threads, an event loop, after the broker was away."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading

import pytest

import celeriac
from celeriac.compat import connect
from tests.workers import ROOT

HANDLER = """
import os, signal, sys
import celeriac
app = celeriac.Celery("sender", broker=sys.argv[1])
app.conf.broker_transport_options = {}

@app.task
def work(n):
    pass

sent = 0
in_handler = 0

def send_too(*_):
    global in_handler
    in_handler += 1
    work.delay(-1)
    work.apply_async((-2,), priority=3)
    signal.setitimer(signal.ITIMER_REAL, 0.001)

work.delay(0)
signal.signal(signal.SIGALRM, send_too)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while in_handler < 200:
    work.delay(sent)
    work.apply_async((sent,), countdown=0)
    sent += 2
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(1 + sent + 2 * in_handler)
"""

SERVER = """
import os, sys, threading
import celeriac
app = celeriac.Celery("sender", broker=sys.argv[1], backend=sys.argv[1])

@app.task
def work(n):
    pass

work.delay(-1)  # the parent has connections open when it forks, as a server that loads its app first has
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        for n in range(50):
            work.delay(n)
            app.send_task("work", (n,))
        os._exit(0)
    children.append(child)
for n in range(50):
    work.delay(n)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [0] * 4, codes
print(1 + 4 * 100 + 50)
"""


def work(n):
    return n


@pytest.fixture
def app(redis_url):
    app = celeriac.Celery("sender", broker=redis_url, set_as_current=False)
    app.task(work, name="work", shared=False)
    yield app
    connect.producer(app).close()
    app.close()


def queued(app, queue="celery"):
    depth = connect.producer(app).depth([queue])[0]
    return depth.ready + depth.scheduled


@pytest.mark.parametrize("program", [HANDLER, SERVER], ids=["in a signal handler", "in forked children"])
def test_every_message_arrives_once_that_is_sent(app, redis_url, program):
    found = subprocess.run(
        [sys.executable, "-c", program, redis_url], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )

    assert found.returncode == 0, found.stderr
    assert queued(app) == int(found.stdout)


def test_who_asks_for_a_result_that_nobody_keeps_does_not_wait(app):
    @app.task(ignore_result=True, shared=False)
    def work():
        """Nothing to tell."""

    assert work.delay().get(timeout=5) is None
    assert work.apply_async(countdown=60).get(timeout=5) is None


def test_threads_share_an_app(app):
    task, barrier, errors = app.tasks["work"], threading.Barrier(16), []

    def send():
        barrier.wait()
        try:
            for n in range(50):
                task.delay(n)
                with app.batch():
                    task.delay(n)
                    task.apply_async((n,), priority=6)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert queued(app) == 16 * 50 * 3


def test_coroutines_of_one_loop_send_in_turns(app):
    task = app.tasks["work"]

    async def send(number):
        for n in range(20):
            task.delay(number * n)
            await asyncio.sleep(0)
            with app.batch():
                task.delay(n)
            await asyncio.to_thread(task.delay, n)

    async def send_all():
        await asyncio.gather(*(send(number) for number in range(10)))

    asyncio.run(send_all())

    assert queued(app) == 10 * 20 * 3


def test_the_first_message_after_the_broker_was_restarted_arrives(redis_server):
    app = celeriac.Celery("sender", broker=redis_server.url, set_as_current=False)
    sent = app.task(work, name="work", shared=False)
    try:
        for n in itertools.count():
            sent.delay(n)
            app.send_task("work", (n,))
            if n == 2:
                break
            redis_server.kill() if n else redis_server.stop()
            redis_server.start()

        assert queued(app) == 6
    finally:
        connect.producer(app).close()
        app.close()
