"""Options of tasks, on one worker."""

from __future__ import annotations

import ast
import base64
import json
from datetime import datetime, timedelta, timezone

import celery
import pytest
import redis
from celery.app import trace
from celery.contrib.testing.worker import start_worker
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kombu.serialization import registry

import celeriac
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.test_events import monitor
from tests.workers import Stage

APP = "tests.apps.surface"
CONF = {"accept_content": ["json", "yaml", "msgpack", "pickle"], "worker_deduplicate_successful_tasks": True}


@pytest.fixture(scope="module")
def stage(tmp_path_factory, shared_redis):
    """One worker for all tests of this module, with broker and results in one database that no other test uses."""
    url = shared_redis.database_url(999)
    with redis.Redis.from_url(url) as store:
        store.flushdb()
    with (
        Stage(tmp_path_factory.mktemp("options"), url, app=APP, conf=CONF) as stage,
        stage.worker(options=["-E"], concurrency=2, env={"C_FORCE_ROOT": "1"}) as worker,
    ):
        stage.log = worker.log
        yield stage


def ran(stage, key):
    return len(stage.effects.of("ran", key))


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma"])
def test_every_serializer_and_compression_goes_there_and_back(stage, serializer, compression):
    value = {"text": "ü", "list": [1, 2.5, None]}
    shown = stage.send("show", value, serializer=serializer, compression=compression).get(timeout=10)
    assert (ast.literal_eval(shown[0]), *shown[1:]) == (value, "celery", "dict")


def test_arguments_keep_their_types_where_the_serializer_has_them(stage):
    assert stage.send("show", {1, 2}, serializer="pickle").get(timeout=10)[2] == "set"
    assert stage.send("show", datetime(2020, 1, 1, tzinfo=timezone.utc)).get(timeout=10)[2] == "datetime"


def test_models_of_pydantic_go_there_and_back(stage):
    assert stage.send("double", {"amount": 2}).get(timeout=10) == {"amount": 4.0}
    for task, bad in (("double", "much"), ("strictly", "2")):
        result = stage.send(task, {"amount": bad})
        result.get(timeout=10, propagate=False)
        # The class itself where it can be made again, else Celery's stand-in, which names it.
        assert "ValidationError" in f"{type(result.result).__name__}: {result.result}"
    assert stage.send("strictly", {"amount": 2.0}).get(timeout=10) == "EUR"


def test_late_tasks_are_acknowledged_as_their_options_say(stage):
    failed = stage.send("fails_unacknowledged", "refused")
    with pytest.raises(ValueError, match="refused"):
        failed.get(timeout=10)
    timed_out = stage.send("runs_out", "again")
    stage.wait_for("ran", "again", times=2)
    stage.effects.open_gate("again")
    assert timed_out.get(timeout=10) == "again"
    assert ran(stage, "refused") == 1


def test_a_task_whose_process_died_is_retried(stage):
    assert stage.send("dies", "once", 1).get(timeout=10) == 1
    assert ran(stage, "once") == 2
    lost = stage.send("dies", "twice", 9)
    with pytest.raises(WorkerLostError, match=r"Worker exited prematurely: signal 9 \(SIGKILL\)"):
        lost.get(timeout=10)
    assert ran(stage, "twice") == 2
    log = stage.log()
    assert [log.count(f"{APP}.dies[{lost.id}] {word}") for word in ("received", "retry:")] == [2, 1]


def test_a_redelivered_task_that_has_succeeded_is_not_run_again(stage):
    result = stage.send("once", "done")
    assert result.get(timeout=10) == "done"
    stock = celery.Celery("stock", broker=stage.broker_url, set_as_current=False)
    with stock.connection_for_write() as connection:  # as kombu restores what a worker did not acknowledge
        body = base64.b64encode(json.dumps([["done"], {}, {}]).encode()).decode()
        raw = {
            "body": body, "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"id": result.id, "task": f"{APP}.once", "lang": "py"},
            "properties": {
                "body_encoding": "base64", "correlation_id": result.id, "delivery_tag": "1", "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": True},
            },
        }  # fmt: skip
        connection.default_channel.client.lpush("celery", json.dumps(raw))
    stage.wait_until_drained()
    assert ran(stage, "done") == 1
    stock.close()


def test_a_task_has_a_result_store_of_its_own(stage, redis_url):
    other = celery.Celery("other", backend=redis_url, set_as_current=False)
    result = stage.client.send_task(f"{APP}.elsewhere", (redis_url, "x"))
    assert wait_until(lambda: other.AsyncResult(result.id).result == "x")
    assert stage.client.AsyncResult(result.id).state == "PENDING"
    other.close()


def test_logged_results_are_cut(stage):
    assert len(stage.send("long_result").get(timeout=10)) == 500
    wait_until(lambda: "long_result" in stage.log() and "'xxxxxxxxxxxxxxxxxxxx..." in stage.log(), 10)
    assert "x" * 60 not in stage.log()


def test_class_based_tasks_run(stage):
    assert stage.send("Counter", 2).get(timeout=10) >= 2
    assert stage.send("wrapped", "x").get(timeout=10) == ["called", "x"]


def test_a_request_class_of_an_app_hears_of_its_tasks(stage):
    def heard(key):
        return [e.event for e in stage.effects.all() if e.key == key and e.event != "ran"]

    assert stage.send("noted", "fine").get(timeout=10) == "fine"
    assert heard("fine") == ["accepted", "success-0"]
    for key, do, expected in (
        ("bad", "fail", ["accepted", "success-1", "failure-ValueError"]),
        ("again", "retry", ["accepted", "success-1", "retry", "failure-Retry", "accepted", "success-0"]),
    ):
        stage.send("noted", key, do)
        wait_until(lambda key=key, expected=expected: heard(key) == expected, 10, lambda key=key: str(heard(key)))
    stage.send("noted", "soft", "soft", soft_time_limit=0.2)
    stage.send("noted", "hard", "hard", time_limit=0.2)
    stage.send("noted", "lost", "die")
    wait_until(lambda: "failure-WorkerLostError" in heard("lost"), 10)
    wait_until(lambda: "failure-SoftTimeLimitExceeded" in heard("soft") and "timeout-soft" in heard("soft"), 10)
    wait_until(lambda: "timeout-hard" in heard("hard"), 10)


def test_a_hard_limit_of_a_call_is_an_error(stage):
    with pytest.raises(TimeLimitExceeded):
        stage.send("noted", "over", "hard", time_limit=0.2).get(timeout=10)


def test_a_task_sends_an_event_of_its_own(stage):
    with monitor(stage.client) as heard:
        result = stage.send("tell", "x")
        assert heard.wait_for(result.id, "task-halfway")["key"] == "x"


def test_eager_tasks_run_at_once(tmp_path):
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    app = celeriac.Celery(broker="redis://nowhere", backend=store, set_as_current=False)
    app.conf.update(task_always_eager=True, task_store_eager_result=True)

    @app.task(shared=False)
    def add(x, y=1):
        return x + y

    result = add.delay(2, y=3)
    assert (result.get(), app.AsyncResult(result.id).result) == (5, 5)
    assert (add.s(1) | add.s()).delay().get() == 3
    app.conf.task_eager_propagates = True
    with pytest.raises(TypeError):
        add.delay()
    app.close()


def certificate(directory):
    """A key and a certificate that it has signed itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def kept_registry():
    """Security changes which serializers this process knows."""
    kept = {name: value.copy() for name, value in vars(registry).items() if isinstance(value, (dict, set))}
    defaults = {name: value for name, value in vars(registry).items() if name.startswith("_default_")}
    yield
    for name, value in (kept | defaults).items():
        setattr(registry, name, value)


def test_messages_are_signed(tmp_path, kept_registry):
    certificate(tmp_path)
    conf = {
        "security_key": f"{tmp_path}/key.pem", "security_certificate": f"{tmp_path}/cert.pem",
        "security_cert_store": f"{tmp_path}/*.pem", "task_serializer": "auth", "event_serializer": "auth",
        "accept_content": ["auth"], "result_accept_content": ["json"],
    }  # fmt: skip
    (tmp_path / "certs").mkdir()
    conf["security_cert_store"] = f"{tmp_path}/certs/*.pem"
    (tmp_path / "certs" / "cert.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    with Stage(tmp_path, app=APP, conf=conf) as stage:
        stage.client.setup_security()
        with stage.worker(pool="solo", env={"TEST_SECURITY": "1"}):
            assert stage.send("note", "signed").get(timeout=10) == "signed"
            stage.client.conf.task_serializer = "json"
            with pytest.raises(Exception, match=r"accept_content|Refusing|disabled"):
                stage.send("note", "unsigned", serializer="json").get(timeout=10)
        assert not stage.effects.of("ran", "unsigned")
        assert connect.open_broker(stage.client).dead_count() == 1


def test_who_wraps_bodies_where_celery_makes_its_tracer_wraps_ours(tmp_path, monkeypatch):
    heard, original = [], trace.build_tracer

    def build_tracer(name, task, *args, **options):
        """What sentry-sdk does, among others."""
        body = task.run

        def wrapped(*words):
            try:
                return body(*words)
            except ValueError as error:
                heard.append(str(error))
                raise

        task.run = wrapped
        return original(name, task, *args, **options)

    monkeypatch.setattr(trace, "build_tracer", build_tracer)
    url = f"sqlite:///{tmp_path}/tracked.sqlite3"
    app = celeriac.Celery("tracked", broker=url, backend=url, set_as_current=False)

    @app.task(shared=False)
    def fail(text):
        raise ValueError(text)

    with start_worker(app, perform_ping_check=False):
        for text in ("one", "two"):
            fail.delay(text).get(timeout=20, propagate=False)
    assert heard == ["one", "two"]
