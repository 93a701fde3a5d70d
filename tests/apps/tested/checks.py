"""Tests as a project of Celery's has them.  ``tests/test_embedded.py`` runs them in a process of their own."""

import os
import threading

import pytest
from celery import chain, chord
from celery.contrib.testing.worker import start_worker
from celery.exceptions import SoftTimeLimitExceeded
from shop import add, charge, endless, fail, notify, sent, third_time, total

from celeriac import Celery

WAIT = 20


@pytest.fixture(scope="session")
def celery_config():
    return {"result_extended": True, "worker_send_task_events": True}


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("celery", "mail"), "shutdown_timeout": 30.0}


@pytest.fixture(scope="session")
def celery_includes():
    return ["shop"]


def test_tasks_that_a_test_declares(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=WAIT) == 16


def test_the_worker_is_the_engine(celery_session_app, celery_session_worker):
    assert "celeriac" in type(celery_session_worker).__module__
    assert celery_session_app.conf.broker_url == "memory://"
    assert celery_session_app.backend.as_uri() == "memory:///"


def test_tasks_and_canvas(celery_session_app, celery_session_worker):
    results = [
        add.delay(1, 2),
        third_time.delay(),
        chain(add.s(1, 1), add.s(4)).apply_async(),
        chord([add.s(1, 2), add.s(3, 4)])(total.s()),
        add.apply_async((2, 2), countdown=0.2, queue="mail"),
        notify.delay("you"),
    ]
    assert [result.get(timeout=WAIT) for result in results] == [3, 2, 6, 10, 4, "hello you"]


def test_errors_and_limits(celery_session_app, celery_session_worker):
    with pytest.raises(ValueError, match="as asked"):
        fail.delay().get(timeout=WAIT)
    with pytest.raises(SoftTimeLimitExceeded):
        endless.delay().get(timeout=WAIT)
    assert {letter.task for letter in celery_session_app.dead_letters.list()} >= {fail.name}


def test_patterns_act(celery_session_app, celery_session_worker):
    assert [charge.delay("7").get(timeout=WAIT) for _ in range(2)] == [1, 1]
    assert sent == ["7"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_an_app_of_its_own(tmp_path, pool):
    app = Celery("own", broker=f"sqlite:///{tmp_path}/store.sqlite3", backend=f"sqlite:///{tmp_path}/store.sqlite3")
    here = os.getpid()

    @app.task(shared=False)
    def where():
        return os.getpid(), threading.current_thread() is threading.main_thread()

    with start_worker(app, pool=pool, concurrency=2, perform_ping_check=False, loglevel="WARNING") as worker:
        pid, is_main = where.delay().get(timeout=WAIT)
        assert worker.concurrency == 2
    assert (pid == here, is_main) == (pool == "threads", pool == "prefork")


def test_what_it_does_not_do_it_says(tmp_path):
    app = Celery("own", broker=f"sqlite:///{tmp_path}/store.sqlite3")
    with pytest.raises(Exception, match="no pool 'fibres'"), start_worker(app, pool="fibres", perform_ping_check=False):
        pass


def test_it_leaves_nothing_behind(tmp_path):
    app = Celery("own", broker=f"sqlite:///{tmp_path}/store.sqlite3")
    threads = set(threading.enumerate())
    with start_worker(app, perform_ping_check=False):
        assert set(threading.enumerate()) > threads
    assert {thread.name for thread in set(threading.enumerate()) - threads if not thread.daemon} == set()
