"""Pools that the engine does not have: Celery's own worker serves an app of ours."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from celeriac import Celery, Limit
from celeriac.compat.handover import celerys_pool, check
from celeriac.compat.options import pool_name
from celeriac.errors import ConfigurationError
from tests.test_control import ask_when_it_listens
from tests.workers import Stage

APP = "tests.apps.green"
WAIT = 60


@pytest.mark.timeout(180)
def test_a_gevent_worker_serves_what_our_producers_send(redis_url, tmp_path):
    with Stage(tmp_path, redis_url, app=APP) as stage:
        options = ["--without-mingle", "--without-gossip"]
        with stage.worker(pool="gevent", concurrency=50, options=options) as worker:
            soon = datetime.now(timezone.utc) + timedelta(seconds=0.5)
            revoked = stage.send("never", countdown=4)
            ask_when_it_listens(stage.client, "revoke", task_id=revoked.id)
            results = {
                "patched": stage.send("socket_module"),
                "chord": chord([stage.signature("wait", n) for n in range(10)], stage.signature("total")).apply_async(),
                "retried": stage.send("third_time"),
                "countdown": stage.send("wait", 1, countdown=0.5),
                "eta": stage.send("wait", 2, eta=soon),
            }
            plain = stage.send_many("wait", range(200))

            values = {name: result.get(timeout=WAIT) for name, result in results.items()}
            assert values.pop("patched").startswith("gevent")
            assert values == {"chord": 45, "retried": 2, "countdown": 1, "eta": 2}
            assert [result.get(timeout=WAIT) for result in plain] == list(range(200))
            with pytest.raises(TaskRevokedError):
                revoked.get(timeout=WAIT)
            assert worker.stop() == 0
        assert worker.log().count("Celery's own worker runs the pool gevent") == 1


def test_tasks_that_need_the_engine_are_refused_by_name():
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.task_routes = {"shop.elsewhere": "other"}

    @app.task(name="shop.charge", idempotency_key="{order}", shared=False)
    def charge(order):
        """One pattern."""

    @app.task(name="shop.notify", shared=False)
    async def notify():
        """A coroutine."""

    @app.task(name="shop.elsewhere", limits=Limit(concurrency=1), shared=False)
    def elsewhere():
        """In a queue that this worker does not serve."""

    @app.task(name="shop.plain", shared=False, dead_letter=False)
    def plain():
        """Nothing that Celery has not."""

    with pytest.raises(ConfigurationError) as refused:
        check(app, "custom")
    text = str(refused.value)
    assert "shop.charge (idempotency_key); shop.notify (async def)" in text
    assert "Take --pool=threads" in text
    assert "elsewhere" not in text
    assert "plain" not in text


@pytest.mark.parametrize(
    ("broker", "pool", "text"),
    [
        ("sqlite:///file.sqlite3", "custom", "cannot take tasks from sqlite:// brokers"),
        ("redis://localhost/0", "gevent", "say it on the command line, -P gevent"),
    ],
)
def test_what_cannot_be_handed_over_is_refused(broker, pool, text):
    app = Celery("shop", broker=broker, set_as_current=False)

    with pytest.raises(ConfigurationError, match=text):
        check(app, pool)


def test_a_pool_that_there_is_not_is_refused():
    assert celerys_pool("fibres") is None
    with pytest.raises(ConfigurationError, match="There is no pool 'fibres'"):
        pool_name("fibres", None)
    with pytest.raises(ConfigurationError, match=r"no\.such:Pool is not installed"):
        celerys_pool("no.such:Pool")
