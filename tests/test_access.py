"""`celeriac acl`: what it prints is applied to real servers, and each role can do its work and no more."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from contextlib import closing

import psycopg
import pytest
import redis
from celery import chord, group
from kombu import Exchange, Queue

from celeriac import Celery
from celeriac.compat import connect
from celeriac.compat.periodic.console import Console
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.errors import AccessDenied, CeleriacError
from celeriac.message import Message
from celeriac.policies.breaking import force, read_all
from celeriac.policies.circuit_breaker import State, Status
from celeriac.policies.limit_book import LimitBook
from tests.apps import roles
from tests.helpers import wait_until
from tests.server_rabbitmq import RabbitServer
from tests.servers import RedisServer
from tests.workers import ROOT, Stage

APP = "tests.apps.forms"
PATTERNS = "tests.apps.roles"
BEATING = ["-B", "-Q", "celery"]
ROLES = ("worker", "producer", "monitor")
SECRET = "s3cret"


def printed(app_module, store, broker, backend, *options):
    """What the command prints for an app, as a person would run it."""
    environment = {"TEST_BROKER": broker, "TEST_BACKEND": backend, "TEST_EFFECTS": "/dev/null", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "celeriac.cli.main", "-A", app_module, "acl", store, *options],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def statements(store, broker, backend, *options, app=APP):
    roles = json.loads(printed(app, store, broker, backend, "--json", *options))
    assert [role["name"] for role in roles] == ["producer", "worker", "monitor"]
    return [statement.replace("CHANGE-ME", SECRET) for role in roles for statement in role["statements"]]


def app_for(url, backend):
    return Celery("roles", broker=url, backend=backend, set_as_current=False)


def signature(app, task, *args, **options):
    return app.signature(f"{APP}.{task}", args, **options)


def assert_produces(app):
    """Everything that a sender does: plain tasks, scheduled ones, groups, chords, and waiting for results."""
    assert signature(app, "note", "plain").delay().get(timeout=15) == "plain"
    assert signature(app, "note", "later").apply_async(countdown=0.3).get(timeout=15) == "later"
    members = group(signature(app, "note", f"g{n}") for n in range(3)).apply_async()
    assert members.get(timeout=15) == ["g0", "g1", "g2"]
    result = chord([signature(app, "note", f"c{n}") for n in range(3)], signature(app, "note"))()
    assert result.get(timeout=15) == ["c0", "c1", "c2"]


def assert_uses_patterns(producer, stage, worker):
    """What a sender needs for patterns, and what its worker needs for them meanwhile."""
    tasks = roles.declare(producer)
    first, second = (tasks["alone"].apply_async(("a",), countdown=0.5) for _ in range(2))
    assert first.id == second.id
    assert tasks["careful"].delay("a").get(timeout=15) == tasks["careful"].delay("a").get(timeout=15) == "a"
    for n in range(2):
        tasks["fragile"].delay(str(n)).get(timeout=15, propagate=False)
    wait_until(lambda: "roles is open" in str(tasks["fragile"].delay("x").get(timeout=15, propagate=False)), 10)
    assert first.get(timeout=15) == "a"
    sent = [tasks["alone"].apply_async((f"bulk{n}",), queue="bulk").id for n in range(roles.MOST + 1)]
    wait_until(lambda: [letter.task_id for letter in stage.dead() if letter.reason == "overflow"] == sent[:1], 10)
    stage.effects.path.touch()
    wait_until(lambda: stage.effects.of("ticked"), 15)
    assert len(stage.effects.of("ran")) == 1
    log = worker.log()
    assert not any(text in log for text in ("NOPERM", "ACCESS_REFUSED", "permission denied", "refuses the user"))


def assert_sees_patterns(monitor):
    """What ``celeriac breakers``, ``limits``, ``schedule`` and ``queues`` read."""
    roles.declare(monitor)
    monitor.conf.beat_schedule = {"tick": {"task": "tests.apps.survival.tick", "schedule": 0.2}}
    with closing(connect.open_key_values(monitor)) as store, closing(connect.open_broker(monitor)) as broker:
        assert read_all(store, [])[1]["roles"].status is Status.OPEN
        book = LimitBook({})
        book.load(store)
        assert book.names() == ["tests.apps.roles.careful"]
        console = Console(StoreScheduler(monitor))
        assert console.listed()[0].sent >= 1
        assert console.leader()
        if broker.has_lanes:
            assert broker.depth(["bulk"])[0].ready == roles.MOST
            assert broker.lanes(["celery"], 10) == []
        refused(lambda: force(store, "roles", State()))


def refused(action):
    with pytest.raises(
        (AccessDenied, CeleriacError, redis.exceptions.NoPermissionError, psycopg.errors.InsufficientPrivilege)
    ):
        action()


# -- Redis -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(request):
    """A server with the three users, and nobody else."""
    with RedisServer() as server:
        with server.client() as client:
            if client.info("server")["redis_version"].startswith("6."):
                pytest.skip("selectors came with Redis 7")
            for statement in statements("redis", server.url, server.url):
                client.execute_command(*statement.split())
            client.acl_setuser("default", enabled=True, passwords=["+admin"], reset_passwords=False, nopass=False)
            client.config_set("requirepass", "admin")
        yield server


def url_of(server, role):
    return f"redis://celeriac-{role}:{SECRET}@127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def working(guarded, tmp_path_factory):
    """A worker with its own user; what it is sent comes from the producer."""
    url, directory = url_of(guarded, "worker"), tmp_path_factory.mktemp("worker")
    conf = {"worker_enable_remote_control": True, "worker_send_task_events": True}
    with Stage(directory, url, app=APP, conf=conf) as stage, stage.worker() as worker:
        yield stage, worker


def as_role(server, role):
    return redis.Redis(port=server.port, username=f"celeriac-{role}", password=SECRET)


def test_producer_and_worker_do_their_work_on_redis(guarded, working):
    stage, worker = working
    url = url_of(guarded, "producer")
    assert_produces(app_for(url, url))
    signature(app_for(url, url), "unheard_of").delay()
    wait_until(stage.dead, 10)
    assert "NOPERM" not in worker.log()
    assert "refuses the user" not in worker.log()


def test_a_producer_cannot_consume_or_destroy_on_redis(guarded, working):
    with closing(connect.open_broker(app_for(url_of(guarded, "producer"), None))) as broker:
        refused(lambda: broker.register("me", ["celery"], 30))
        refused(lambda: broker.lease("me", ["celery"], 1))
        refused(lambda: broker.purge("celery"))
        refused(broker.dead_letters)
    with as_role(guarded, "producer") as client:
        for command in (
            "RPOP celery", "LRANGE celery 0 -1", "DEL celery", "SET celery x", "LPUSH other x", "BRPOP celery 1",
            "ZADD celeriac:owners 0 x", "HGETALL celeriac:lease:x", "SET celery-task-meta-1 x", "FLUSHALL", "KEYS *",
            "SUBSCRIBE other", "CONFIG GET *", "EVAL return(1) 1 celery",
        ):  # fmt: skip
            refused(lambda command=command: client.execute_command(*command.split()))


def test_a_worker_cannot_flush_or_look_elsewhere_on_redis(guarded, working):
    with as_role(guarded, "worker") as client:
        for command in (
            "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN", "DEL celery", "LPUSH other x", "GET other",
            "RPOP other", "SUBSCRIBE other",
        ):  # fmt: skip
            refused(lambda command=command: client.execute_command(*command.split()))


def test_a_monitor_looks_and_does_nothing_on_redis(guarded, working):
    stage, _ = working
    url = url_of(guarded, "monitor")
    stage.send("note", "seen").get(timeout=15)
    app = app_for(url, url)
    with closing(connect.open_broker(app)) as broker:
        assert broker.depth(["celery"])[0].consumers == 2
        assert broker.leased_count() == 0
        assert len(broker.dead_letters()) == broker.dead_count()
        refused(lambda: broker.publish([Message("celery", b"{}")]))
        refused(lambda: broker.lease("me", ["celery"], 1))
        refused(lambda: broker.purge("celery"))
        refused(lambda: broker.discard(["1-1"]))
    with app.connection_for_read() as connection:
        seen = []
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        wait_until(lambda: captured(receiver) or seen, 15, "no events were seen")
    with as_role(guarded, "monitor") as client:
        for command in (
            "LPUSH celery x",
            "RPOP celery",
            "SET celery-task-meta-1 x",
            "PUBLISH /0.celery.pidbox x",
            "FLUSHALL",
        ):
            refused(lambda command=command: client.execute_command(*command.split()))


def test_a_monitor_that_may_control_asks_workers(guarded, working):
    with as_role(guarded, "worker") as client:
        refused(lambda: client.execute_command("ACL", "LIST"))
    with guarded.client(password="admin") as admin:
        for statement in statements("redis", guarded.url, guarded.url, "--control", "--user-prefix", "flower-"):
            admin.execute_command(*statement.split())
    url = url_of(guarded, "monitor").replace("celeriac-", "flower-")
    inspect = app_for(url, url).control.inspect(timeout=2)
    answer = wait_until(
        inspect.ping, 30, lambda: str([denied(entry) for entry in guarded.client(password="admin").acl_log()])
    )
    assert answer == {"one@test": {"ok": "pong"}}


def test_patterns_work_with_the_rights_of_each_role_on_redis(guarded, tmp_path):
    with guarded.client(password="admin") as admin:
        own = guarded.database_url(3)
        for statement in statements("redis", own, own, "--user-prefix", "p-", app=PATTERNS):
            admin.execute_command(*statement.split())
    worker_url, url, monitor = (url_of(guarded, each).replace("celeriac-", "p-").replace("/0", "/3") for each in ROLES)
    with Stage(tmp_path, worker_url, worker_url, app=PATTERNS) as stage, stage.worker(options=BEATING) as worker:
        assert_uses_patterns(app_for(url, url), stage, worker)
        assert_sees_patterns(app_for(monitor, monitor))


def denied(entry):
    return [str(entry[field]) for field in ("username", "reason", "context", "object")]


def captured(receiver):
    try:
        receiver.capture(limit=1, timeout=1, wakeup=False)
    except (TimeoutError, OSError):
        return False
    return True


def test_the_rules_for_redis_6_have_no_selectors_and_are_taken(shared_redis):
    with RedisServer() as server, server.client() as client:
        for statement in statements("redis", server.url, server.url, "--redis-6"):
            assert "(" not in statement
            assert client.execute_command(*statement.split()) in (b"OK", "OK", True)
        url = url_of(server, "worker")
        with closing(connect.open_broker(app_for(url, url))) as broker:
            broker.publish([Message("celery", b"{}")])
            broker.register("me", ["celery"], 30)
            assert len(broker.lease("me", ["celery"], 1)) == 1


# -- RabbitMQ ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rabbit(shared_rabbitmq: RabbitServer):
    """A virtual host in which the three users have their rights."""
    with shared_rabbitmq.vhost() as url:
        vhost = url.rpartition("/")[2]
        for statement in statements("rabbitmq", url, url.replace("amqp", "rpc")):
            apply_to_rabbitmq(shared_rabbitmq, shlex.split(statement))
        yield shared_rabbitmq, vhost, url


def apply_to_rabbitmq(server, words):
    """What rabbitmqctl does, by the server's own functions: starting rabbitmqctl takes seconds."""
    quoted = [f'<<"{word.encode("unicode_escape").decode()}">>' for word in words]
    if words[1] == "add_user":
        server.eval(f'catch rabbit_auth_backend_internal:delete_user({quoted[2]}, <<"test">>).')
        server.eval(f'rabbit_auth_backend_internal:add_user({quoted[2]}, {quoted[3]}, <<"test">>).')
    else:
        _, _, _, vhost, user, configure, write, read = quoted
        server.eval(
            f'rabbit_auth_backend_internal:set_permissions({user}, {vhost}, {configure}, {write}, {read}, <<"test">>).'
        )


def rabbit_url(url, role):
    return url.replace("guest:guest@", f"celeriac-{role}:{SECRET}@")


def test_each_role_does_its_work_and_no_more_on_rabbitmq(rabbit, tmp_path):
    _, _, url = rabbit
    worker_url = rabbit_url(url, "worker")
    results = f"sqlite:///{tmp_path}/results.sqlite3"
    with Stage(tmp_path, worker_url, results, app=APP) as stage, stage.worker() as worker:
        producer = app_for(rabbit_url(url, "producer"), results)
        producer.conf.task_queues = [Queue("celery", Exchange("celery"), routing_key="celery", no_declare=True)]
        assert_produces(producer)
        signature(producer, "unheard_of").delay()
        wait_until(lambda: "unknown_task" in worker.log(), 10)
        assert "ACCESS_REFUSED" not in worker.log()
        with closing(connect.open_broker(producer)) as broker:
            refused(lambda: broker.register("me", ["celery"], 30) or broker.lease("me", ["celery"], 1))
            refused(lambda: broker.purge("celery"))
        monitor = app_for(rabbit_url(url, "monitor"), results)
        with closing(connect.open_broker(monitor)) as broker:
            refused(lambda: broker.publish([Message("celery", b"{}")]))
            refused(lambda: broker.register("me", ["celery"], 30) or broker.lease("me", ["celery"], 1))


def test_patterns_work_with_the_rights_of_each_role_on_rabbitmq(shared_rabbitmq, redis_url, tmp_path):
    with shared_rabbitmq.vhost() as url:
        for statement in statements("rabbitmq", url, redis_url, app=PATTERNS):
            apply_to_rabbitmq(shared_rabbitmq, shlex.split(statement))
        worker_url, producer_url, _ = (rabbit_url(url, each) for each in ROLES)
        with Stage(tmp_path, worker_url, redis_url, app=PATTERNS) as stage:
            roles.declare(stage.client)
            stage.broker.depth(["bulk"])  # it is there before producers are
            with stage.worker(options=BEATING) as worker:
                producer = app_for(producer_url, redis_url)
                for queue in roles.QUEUES:
                    queue.no_declare = True
                try:
                    assert_uses_patterns(producer, stage, worker)
                finally:
                    for queue in roles.QUEUES:
                        queue.no_declare = None


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def granted(shared_postgres, postgres_database, postgres_url):
    """A database in which the three roles have their rights."""
    existing = {name for (name,) in shared_postgres.execute("SELECT rolname FROM pg_roles")}
    for statement in statements("postgres", postgres_url, postgres_url):
        if not statement.startswith("CREATE ROLE") or statement.split('"')[1] not in existing:
            shared_postgres.execute(statement, postgres_database)
    return lambda role: shared_postgres.database_url(postgres_database, f"celeriac-{role}:{SECRET}")


def test_each_role_does_its_work_and_no_more_on_postgresql(granted, tmp_path):
    worker_url = granted("worker")
    with Stage(tmp_path, worker_url, worker_url, app=APP) as stage, stage.worker():
        url = granted("producer")
        assert_produces(app_for(url, url))
        with closing(connect.open_broker(app_for(url, None))) as broker:
            refused(lambda: broker.register("me", ["celery"], 30) or broker.lease("me", ["celery"], 1))
            refused(lambda: broker.purge("celery"))
            refused(broker.dead_letters)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                "SELECT * FROM celeriac.messages",
                "DELETE FROM celeriac.messages",
                "DROP SCHEMA celeriac CASCADE",
            ):
                refused(lambda statement=statement: connection.execute(statement))
        signature(stage.client, "unheard_of").delay()
        wait_until(stage.dead, 10)
        with psycopg.connect(worker_url, autocommit=True) as connection:
            for statement in (
                "TRUNCATE celeriac.messages",
                "DROP TABLE celeriac.messages",
                "CREATE TABLE celeriac.x ()",
            ):
                refused(lambda statement=statement: connection.execute(statement))
        monitor = granted("monitor")
        with closing(connect.open_broker(app_for(monitor, monitor))) as broker:
            assert broker.depth(["celery"])[0].consumers == 2
            assert len(broker.dead_letters()) == 1
            refused(lambda: broker.publish([Message("celery", b"{}")]))
            refused(lambda: broker.register("me", ["celery"], 30) or broker.lease("me", ["celery"], 1))
            refused(lambda: broker.purge("celery"))


def test_patterns_work_with_the_rights_of_each_role_on_postgresql(
    shared_postgres, postgres_database, postgres_url, tmp_path
):
    existing = {name for (name,) in shared_postgres.execute("SELECT rolname FROM pg_roles")}
    for statement in statements("postgres", postgres_url, postgres_url, "--user-prefix", "p-", app=PATTERNS):
        if not statement.startswith("CREATE ROLE") or statement.split('"')[1] not in existing:
            shared_postgres.execute(statement, postgres_database)
    worker_url, url, monitor = (shared_postgres.database_url(postgres_database, f"p-{each}:{SECRET}") for each in ROLES)
    with Stage(tmp_path, worker_url, worker_url, app=PATTERNS) as stage, stage.worker(options=BEATING) as worker:
        assert_uses_patterns(app_for(url, url), stage, worker)
        assert_sees_patterns(app_for(monitor, monitor))


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_can_be_piped_into_the_stores_own_client(redis_url):
    text = printed(APP, "redis", redis_url, redis_url, "--role", "producer", "--user-prefix", "shop-", "-Q", "orders")
    assert text.startswith("ACL SETUSER shop-producer reset on >CHANGE-ME")
    assert "%W~orders" in text
    assert text.count("\n") == 1


def test_a_worker_that_may_not_declare_delays_is_told_whose_right_it_lacks(shared_rabbitmq):
    with shared_rabbitmq.vhost() as url:
        vhost = url.rpartition("/")[2]
        shared_rabbitmq.eval(
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{vhost}">>, <<"^celery$">>, <<".*">>, <<".*">>, '
            '<<"tests">>).'
        )
        app = app_for(url, None)
        with closing(connect.open_broker(app)) as broker, pytest.raises(AccessDenied, match="celeriac acl rabbitmq"):
            broker.publish([Message("celery", b"{}", due=time.time() + 60)])
