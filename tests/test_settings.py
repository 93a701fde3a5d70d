"""Celery's settings: the same messages and results as Celery's, honoured by the worker, or refused with a way out."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from datetime import datetime, timedelta, timezone

import celery
import pytest
import redis
from celery.exceptions import OperationalError
from celery.result import AsyncResult
from kombu import Exchange, Queue

import celeriac
from celeriac.compat import connect
from celeriac.compat.patience import longest_outage
from celeriac.compat.refusals import REFUSED, UNNEEDED, refuse, unneeded
from celeriac.errors import ConfigurationError
from tests.helpers import free_port, wait_until
from tests.test_control import ask_when_it_listens
from tests.workers import Stage

APP = "tests.apps.surface"

# -- sending -----------------------------------------------------------------------------------------------------------


def app_of(kind, url, conf):
    app = kind("sender", broker=url, backend=url, set_as_current=False)
    app.conf.update(conf)

    @app.task(name="add", shared=False)
    def add(x, y=0):
        return x + y

    @app.task(name="own", shared=False, serializer="yaml", expires=60, time_limit=9, soft_time_limit=8)
    def own():
        return None

    return app


def add(*args, **options):
    return lambda app: app.tasks["add"].apply_async((1,), {"y": 2}, *args, task_id="one", **options)


def own(app):
    return app.tasks["own"].apply_async(task_id="one")


def by_name(**options):
    return lambda app: app.send_task(
        "elsewhere", ([1, "x" * 300],), {"y": {"a": [[[["deep"]]]]}}, task_id="one", **options
    )


LATER = datetime(2100, 1, 1, tzinfo=timezone(timedelta(hours=2)))
NAIVE = datetime(2100, 1, 1)  # noqa: DTZ001 - as many apps write it
MEDIA = Queue("media", Exchange("media", type="topic"), routing_key="media.#")


class Router:
    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": f"of_{task}", "priority": 4} if kwargs else None


def route(name, args, kwargs, options, task=None, **_):
    return {"queue": "by_function", "serializer": "msgpack"} if options.get("shadow") else None


MESSAGES = {
    "plain": ({}, add()),
    "task_serializer": ({"task_serializer": "yaml"}, add()),
    "task_compression": ({"task_compression": "gzip"}, add()),
    "serializer": ({}, add(serializer="msgpack")),
    "compression": ({}, add(compression="bzip2")),
    "options_of_the_task": ({}, own),
    "task_protocol": ({"task_protocol": 1}, add()),
    "task_default_queue": ({"task_default_queue": "other"}, add()),
    "task_default_priority": ({"task_default_priority": 5}, add()),
    "task_default_delivery_mode": ({"task_default_delivery_mode": "transient"}, add()),
    "task_default_exchange": ({"task_default_exchange": "main", "task_default_routing_key": "key"}, add()),
    "task_default_exchange_type": ({"task_default_exchange_type": "topic", "task_default_routing_key": "key"}, add()),
    "task_queues": ({"task_queues": (Queue("celery"), MEDIA)}, add(queue="media", routing_key="media.image")),
    "routing_key_that_nobody_bound": ({"task_queues": (MEDIA,)}, add(queue="media", routing_key="other")),
    "task_routes": ({"task_routes": {"add": {"queue": "routed", "priority": 2}}}, add()),
    "task_routes_glob": ({"task_routes": {"a*": "by_glob"}}, add()),
    "task_routes_regex": ({"task_routes": ([("nothing", {"queue": "no"})], {"ad+": "by_regex"})}, add()),
    "task_routes_class": ({"task_routes": (Router(),)}, add()),
    "task_routes_function": ({"task_routes": (route,)}, add(shadow="seen_as")),
    "route_name": ({"task_routes": {"alias": {"queue": "by_alias"}}}, by_name(route_name="alias")),
    "task_repr_maxlevels": ({"task_repr_maxlevels": 1}, by_name()),
    "argsrepr": ({}, by_name(argsrepr="(secret)", kwargsrepr="{}")),
    "delivery_mode": ({}, add(delivery_mode=1)),
    "exchange_and_routing_key": ({}, add(exchange="", routing_key="celery")),
    "priority": ({}, add(priority=9)),
    "headers": ({}, add(headers={"colour": "red"}, reply_to="somebody")),
    "expires": ({}, by_name(expires=LATER)),
    "expires_naive": ({"timezone": "Europe/Berlin"}, by_name(expires=NAIVE)),
    "enable_utc": ({"enable_utc": False, "timezone": "Europe/Berlin"}, by_name(expires=LATER)),
    "ignore_result": ({}, add(ignore_result=True)),
    "links": ({}, by_name(link=celery.signature("after"), link_error=celery.signature("sorry"))),
}


def messages(url):
    """What lies in all queues of a database, without what is different each time."""
    with redis.Redis.from_url(url) as store:
        queues = {key: store.lrange(key, 0, -1) for key in store.keys("*") if store.type(key) == b"list"}
        store.delete("nothing", *queues)  # not the bindings: kombu remembers that it has declared them
    return {name.decode(): [readable(json.loads(raw)) for raw in found] for name, found in sorted(queues.items())}


def readable(envelope):
    headers, properties = envelope["headers"], envelope["properties"]
    for noise in ("celeriac-sent", "origin", "stamped_headers", "stamps"):
        headers.pop(noise, None)
    # Celery leaves representations that were given in the properties as well, where nobody looks for them.
    for noise in ("delivery_tag", "correlation_id", "reply_to", "argsrepr", "kwargsrepr"):
        if properties.get(noise) != "somebody":
            properties.pop(noise, None)
    if "expiration" in properties:  # in milliseconds from now
        properties["expiration"] = round(int(properties["expiration"]) / 60_000)
    if headers.get("expires"):
        headers["expires"] = headers["expires"][:16]
    body = base64.b64decode(envelope["body"])
    if envelope["content-type"] == "application/json" and "compression" not in headers:
        body = json.loads(body)
    return {**envelope, "body": body, "content-encoding": envelope["content-encoding"].lower()}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_is_the_same_as_from_celery(redis_url, case):
    conf, send = MESSAGES[case]
    seen = []
    for kind in (celery.Celery, celeriac.Celery):
        app = app_of(kind, redis_url, conf)
        send(app)
        seen.append(messages(redis_url))
        app.close()
    assert seen[0] == seen[1]
    assert seen[0] or case == "routing_key_that_nobody_bound"


def test_a_queue_that_is_missing_is_an_error_where_it_is_to_be_one(redis_url):
    for kind in (celery.Celery, celeriac.Celery):
        app = app_of(kind, redis_url, {"task_create_missing_queues": False})
        with pytest.raises(celery.exceptions.QueueNotFound):
            app.send_task("x", queue="nowhere")
        app.close()


def test_sending_is_tried_again_as_the_policy_says():
    url = f"redis://127.0.0.1:{free_port()}/0"
    app = app_of(celeriac.Celery, url, {"task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.2}})
    for options, least in (({}, 0.3), ({"retry": False}, 0.0), ({"retry_policy": {"max_retries": 1}}, 0.2)):
        started = time.monotonic()
        with pytest.raises(OperationalError):
            app.send_task("x", **options)
        assert least <= time.monotonic() - started < least + 2
    app.close()


def test_a_call_has_its_own_class_of_handle(redis_url):
    class Handle(AsyncResult):
        pass

    app = app_of(celeriac.Celery, redis_url, {})
    assert isinstance(app.send_task("x", result_cls=lambda task_id: Handle(task_id, app=app)), Handle)
    app.close()


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conf",
    [
        {"result_serializer": "yaml", "result_compression": "gzip", "result_accept_content": ["yaml", "json"]},
        {"result_extended": True, "result_accept_content": ["json"]},
    ],
    ids=["yaml", "extended"],
)
def test_results_are_stored_as_by_celery(tmp_path, redis_url, conf):
    """Stock Celery reads them, and its worker writes the same fields."""
    reader = celery.Celery("reader", broker=redis_url, backend=redis_url, set_as_current=False)
    reader.conf.update(conf)
    with Stage(tmp_path, redis_url, app=APP, conf=conf) as stage, stage.worker(pool="solo"):
        result = stage.send("note", "x")
        assert reader.AsyncResult(result.id).get(timeout=10) == "x"
        meta = reader.backend.get_task_meta(result.id, cache=False)
    assert meta["status"] == "SUCCESS"
    if "result_extended" in conf:
        assert (meta["name"], meta["args"], meta["queue"]) == (f"{APP}.note", ["x"], "celery")
        assert meta["worker"] == "one@test"
    reader.close()


def test_results_expire(tmp_path, redis_url):
    conf = {"result_expires": 500, "result_failure_expires": 50}
    with Stage(tmp_path, redis_url, app=APP, conf=conf) as stage, stage.worker(pool="solo"):
        good, bad = stage.send("note", "x"), stage.send("fail", "y")
        assert good.get(timeout=10) == "x"
        with pytest.raises(ValueError, match="y"):
            bad.get(timeout=10)
        with redis.Redis.from_url(redis_url) as store:
            lives = [store.ttl(f"celery-task-meta-{result.id}") for result in (good, bad)]
    assert 450 < lives[0] <= 500
    assert 0 < lives[1] <= 50


# -- connections -------------------------------------------------------------------------------------------------------


def test_connection_settings_reach_the_engine():
    app = celeriac.Celery(broker="redis://broker/3", backend="redis://", set_as_current=False)
    app.conf.update(
        broker_transport_options={"global_keyprefix": "here:", "priority_steps": [0, 5], "socket_timeout": 7},
        broker_connection_timeout=3, redis_host="results", redis_port=7000, redis_db=4, redis_username="u",
        redis_password="p", redis_backend_use_ssl={"ssl_cert_reqs": "required"},
    )  # fmt: skip
    options = connect.open_broker(app).options
    assert (options.key_prefix, options.priority_steps) == ("here:", (0, 5))
    assert (options.connect_timeout, options.answer_timeout) == (3.0, 7.0)
    assert connect.open_backend(app)._options.url == "rediss://u:p@results:7000/4"  # noqa: SLF001 - its public one has no password


@pytest.mark.parametrize(
    ("conf", "prefix"),
    [
        ({"broker_url": "redis://localhost/3"}, "of-broker:"),
        ({"broker_url": ["redis://localhost/3"]}, "of-broker:"),
        ({"broker_transport": "redis", "broker_host": "localhost"}, "of-broker:"),
        ({"broker_url": "amqp://localhost"}, "of-results:_"),
        ({"broker_url": ["amqp://a", "amqp://b"]}, "of-results:_"),
    ],
)
def test_shared_state_has_the_options_of_the_store_that_it_is_in(conf, prefix):
    app = celery.Celery(backend="redis://localhost/4", set_as_current=False)
    app.conf.update(
        conf, broker_transport_options={"global_keyprefix": "of-broker:"},
        result_backend_transport_options={"global_keyprefix": "of-results:_"},
    )  # fmt: skip
    assert connect.open_key_values(app).place[2] == prefix


def test_a_broker_may_be_named_in_parts():
    app = celery.Celery(set_as_current=False)
    app.conf.update(
        broker_transport="redis", broker_host="here", broker_port=7000, broker_user="u", broker_password="p/",
        broker_vhost="3",
    )  # fmt: skip
    assert connect.broker_url(app) == "redis://u:p%2F@here:7000/3"


def test_how_long_an_outage_may_last():
    app = celery.Celery(set_as_current=False)
    assert longest_outage(app.conf) is None
    app.conf.broker_connection_max_retries = 3
    assert longest_outage(app.conf) == 2 + 4 + 6
    app.conf.broker_connection_max_retries = None
    assert longest_outage(app.conf) is None
    app.conf.broker_connection_retry = False
    assert longest_outage(app.conf) == 0


def test_a_worker_gives_a_broker_up_as_it_is_told(tmp_path, redis_server):
    away = f"redis://127.0.0.1:{free_port()}/0"
    with Stage(tmp_path, away, app=APP, conf={"broker_connection_retry_on_startup": False}) as stage:
        worker = stage.worker(name="early")
        worker.launch()
        try:
            assert worker.wait() == 1
        finally:
            worker.close()
        assert "cannot be reached" in worker.log() or "refused" in worker.log()
    conf = {"broker_connection_retry": False, "broker_connection_retry_on_startup": True, "celeriac_lease_seconds": 2}
    with Stage(tmp_path, redis_server.url, app=APP, conf=conf) as stage, stage.worker() as worker:
        redis_server.stop()
        assert worker.wait() == 1
        assert "Giving up on the broker" in worker.log()


# -- what is refused ---------------------------------------------------------------------------------------------------


def named(**conf):
    app = celeriac.Celery(broker="redis://here", set_as_current=False)
    app.conf.update(conf)
    return app


def with_strategy():
    app = named()

    @app.task(name="odd", Strategy="elsewhere:strategy", shared=False)
    def odd():
        return None

    app.finalize()
    return app


CANNOT = {
    **{name: (lambda name=name: named(**{name: "elsewhere:Thing"}), name) for name in REFUSED},
    "read_and_write": (
        lambda: named(broker_read_url="redis://a", broker_write_url="redis://b"),
        "set broker_url alone",
    ),
    "several": (lambda: named(broker_url=["redis://a", "redis://b"]), "Sentinel"),
    "strategy": (with_strategy, "odd has a Strategy of its own"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_cannot_be_honoured_is_refused_with_a_way_out(case):
    make, text = CANNOT[case]
    with pytest.raises(ConfigurationError, match=text):
        refuse(make())


def test_the_worker_refuses_on_its_command_line(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        for options, text in (
            (["--pool-start-method=spawn"], "worker_pool_start_method = 'spawn' is not supported"),
            (["--pool=fibres"], "There is no pool"),
        ):
            worker = stage.worker(name=text.split()[0], options=options)
            worker.launch()
            try:
                assert worker.wait() in {1, 2}
            finally:
                worker.close()
            assert text in worker.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is warned of pickle")
def test_pickle_is_refused_to_root_as_by_celery(tmp_path):
    conf, env = {"accept_content": ["json", "pickle"]}, {"C_FORCE_ROOT": ""}
    with Stage(tmp_path, app=APP) as stage:
        worker = stage.worker(conf=conf, env=env)
        worker.launch()
        try:
            assert worker.wait() == 1
        finally:
            worker.close()
    assert "Running a worker with superuser privileges" in worker.log()
    assert "Traceback" not in worker.log()


def test_settings_without_an_effect_are_named():
    app = named()
    assert unneeded(app) == []
    app.conf.update(dict.fromkeys(UNNEEDED, 7))
    assert [line.partition(" ")[0] for line in unneeded(app)] == list(UNNEEDED)
    assert all("has no effect: " in line for line in unneeded(app))


# -- the worker --------------------------------------------------------------------------------------------------------


def test_without_prefetch_nothing_waits_in_a_slot(tmp_path):
    with Stage(tmp_path, app=APP) as stage:
        for name, options, conf in (
            ("by-setting", [], {"worker_disable_prefetch": True}),
            ("by-option", ["--disable-prefetch"], {}),
            ("by-multiplier", [], {"worker_prefetch_multiplier": 1}),
        ):
            with stage.worker(concurrency=1, options=options, conf=conf, name=name) as worker:
                held = stage.send("hold", name, f"gate-{name}")
                waiting = stage.send_many("note", [f"{name}-{n}" for n in range(3)])
                stage.wait_for("started", name)
                assert stage.broker.leased_count() == 1
                stage.effects.open_gate(f"gate-{name}")
                assert held.get(timeout=10) == name
                assert [result.get(timeout=10) for result in waiting]
                worker.stop()


def test_a_worker_that_is_to_size_itself_says_how(tmp_path):
    with Stage(tmp_path, app=APP) as stage, stage.worker(concurrency="auto") as worker:
        found = re.search(
            r"worker_concurrency='auto' resolved to (\d+) \(pool=prefork, .*available cpus=\d+\)", worker.log()
        )
        assert found
        assert len(worker.slots()) == int(found[1])


def test_a_worker_has_a_queue_of_its_own(tmp_path):
    with Stage(tmp_path, app=APP, conf={"worker_direct": True}) as stage, stage.worker():
        queue = celery.utils.nodenames.worker_direct("one@test")
        assert stage.send("note", "direct", queue=queue).get(timeout=10) == "direct"


def test_modules_are_imported(tmp_path):
    conf = {"include": ["tests.apps.remote"]}
    with Stage(tmp_path, app=APP) as stage, stage.worker(conf=conf, options=["-I", "tests.apps.settling"]):
        registered = str(ask_when_it_listens(stage.client, "registered"))
    assert "tests.apps.remote.nap" in registered
    assert "tests.apps.settling." in registered


def test_logs_look_as_they_are_told_to(tmp_path):
    conf = {
        "worker_log_format": "LINE %(levelname)s %(message)s", "worker_task_log_format": "TASK %(task_name)s %(message)s",
        "worker_redirect_stdouts_level": "ERROR",
    }  # fmt: skip
    with Stage(tmp_path, app=APP) as stage, stage.worker(conf=conf) as worker:
        assert stage.send("speak", "x").get(timeout=10) == "x"
        wait_until(lambda: f"TASK {APP}.speak logged x" in worker.log(), 10, worker.log)
        assert "LINE INFO Task tests.apps.surface.speak" in worker.log()
        assert "LINE ERROR printed x" in worker.log() or f"TASK {APP}.speak printed x" in worker.log()
