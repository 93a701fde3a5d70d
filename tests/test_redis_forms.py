"""Redis as it is run in production: sentinels, users, TLS, prefixes, sockets, Valkey; and what cannot be used is refused."""

from __future__ import annotations

import gc
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from contextlib import closing
from typing import ClassVar

import pytest

from celeriac import Celery
from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.errors import AccessDenied, ConfigurationError, SchemaError, StoreFull, StoreUnavailable
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from tests.helpers import wait_until
from tests.server_sentinel import MASTER_NAME, SentinelGroup
from tests.servers import RedisServer, die_with_parent, redis_program
from tests.workers import Stage

APP = "tests.apps.forms"
SENTINEL = {"master_name": MASTER_NAME}


def app_for(url, backend=None, **conf):
    app = Celery("forms", broker=url, backend=backend, set_as_current=False)
    app.conf.update(conf)
    return app


def round_trip(broker: Broker) -> None:
    """Send, lease and settle one message."""
    broker.publish([Message("forms", b"hello")])
    broker.register("forms:1", ["forms"], 30)
    (delivery,) = broker.lease("forms:1", ["forms"], 1)
    assert broker.settle("forms:1", [Outcome(delivery, State.SUCCEEDED)]).fenced == 0
    assert broker.unregister("forms:1")


# -- sentinels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinels():
    with SentinelGroup() as group:
        yield group


def test_a_master_that_is_killed_loses_nothing_that_was_replicated(sentinels, tmp_path):
    conf = {"broker_transport_options": SENTINEL, "result_backend_transport_options": SENTINEL}
    # The flow outlasts the failover in one slot, and workers and producer find the new master by themselves.
    with Stage(tmp_path, sentinels.url, app=APP, conf=conf) as stage, stage.worker():
        first = stage.send_many("note_late", [f"a{n}" for n in range(200)])
        slow = stage.send_many("nap_late", [f"s{n}" for n in range(40)])
        wait_until(lambda: stage.effects.of("napped"), 10, "nothing ran")
        sentinels.wait_for_replica()
        sentinels.fail_over()
        sentinels.wait_for_failover()
        second = wait_until(lambda: try_sending(stage, [f"b{n}" for n in range(100)]), 20, "nobody could send", 0.2)
        for result in (*first, *slow, *second):
            result.get(timeout=30)
        stage.wait_until_drained()
        assert len(stage.effects.count("ran")) == 300
        assert len(stage.effects.count("napped")) == 40
        # What the replica had not heard of runs a second time: the last moment, and not all of it.
        assert sum(count - 1 for count in stage.effects.count("napped").values()) < 10
        assert stage.dead() == []


def try_sending(stage, keys):
    try:
        return stage.send_many("note_late", keys)
    except StoreUnavailable:
        return None


def test_a_wrong_master_name_is_said_to_be_wrong(sentinels):
    conf = {"broker_transport_options": {"master_name": "other"}}
    with closing(connect.open_broker(app_for(sentinels.url, **conf))) as broker:
        with pytest.raises(StoreUnavailable, match=r"other.*master_name") as caught:
            broker.ping()
        assert "sentinel://" in str(caught.value)


def test_a_sentinel_url_without_a_masters_name_is_refused():
    with pytest.raises(ConfigurationError, match="master_name"):
        connect.open_broker(app_for("sentinel://localhost:1"))


def test_a_sentinel_that_is_taken_for_a_redis_is_recognised(sentinels):
    app = app_for(f"redis://127.0.0.1:{sentinels.sentinels[0].port}/0")
    with closing(connect.open_broker(app)) as broker, pytest.raises(ConfigurationError, match="sentinel://"):
        broker.publish([Message("forms", b"hello")])


def test_the_database_and_the_options_of_connections_to_sentinels(sentinels):
    conf = {"broker_transport_options": {**SENTINEL, "sentinel_kwargs": {"socket_timeout": 1.0}}}
    url = f"sentinel://127.0.0.1:{sentinels.sentinels[0].port}/7"
    with closing(connect.open_broker(app_for(url, **conf))) as broker:
        round_trip(broker)
        broker.publish([Message("seven", b"left")])
    with sentinels.current.client(7) as client:
        assert client.llen("seven") == 1


def test_several_redis_urls_are_refused():
    with pytest.raises(ConfigurationError, match="sentinel://"):
        connect.open_broker(app_for(["redis://localhost:1/0", "redis://localhost:2/0"]))


# -- users -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """A server with a user, and a default user with a password."""
    with RedisServer() as server:
        with server.client() as client:
            client.acl_setuser(
                "ann", enabled=True, passwords=["+s3cret"], keys=["*"], channels=["*"], categories=["+@all"]
            )
            client.acl_setuser(
                "bob", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+hello", "+script|load", "+ping"]
            )
            client.config_set("requirepass", "hunter2")
        yield server


def test_a_user_with_a_password(guarded):
    url = f"redis://ann:s3cret@127.0.0.1:{guarded.port}/0"
    with closing(connect.open_broker(app_for(url))) as broker:
        round_trip(broker)
        assert "s3cret" not in broker.url


def test_a_password_without_a_user(guarded):
    with closing(connect.open_broker(app_for(f"redis://:hunter2@127.0.0.1:{guarded.port}/0"))) as broker:
        round_trip(broker)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        ("ann:wrong@", "'ann'.*(?i:password)"),
        (":wrong@", "'default'.*(?i:password)"),
        ("", "'default'.*(?i:authenticated)"),
    ],
)
def test_a_wrong_password_is_said_to_be_wrong(guarded, credentials, said):
    with closing(connect.open_broker(app_for(f"redis://{credentials}127.0.0.1:{guarded.port}/0"))) as broker:
        with pytest.raises(AccessDenied, match=said) as caught:
            broker.ping()
        assert "\n" not in str(caught.value)
        assert "wrong" not in broker.url


def test_a_missing_right_is_named_with_the_command_that_prints_it(guarded):
    with (
        closing(connect.open_broker(app_for(f"redis://bob:s3cret@127.0.0.1:{guarded.port}/0"))) as broker,
        pytest.raises(AccessDenied, match=r"'bob'.*(lpush|LPUSH).*celeriac acl redis"),
    ):
        broker.publish([Message("forms", b"hello")])


def test_a_worker_with_a_wrong_password_does_not_start(guarded, tmp_path):
    with Stage(tmp_path) as stage:
        worker = stage.worker(broker=f"redis://ann:wrong@127.0.0.1:{guarded.port}/0")
        worker.launch()
        assert worker.wait() == 1
        assert "refuses the user 'ann'" in worker.log()
        assert "Traceback" not in worker.log()


# -- the states of a server --------------------------------------------------------------------------------------------


def test_a_server_without_memory_is_full(tmp_path):
    with (
        RedisServer(options=("--maxmemory", "2mb")) as server,
        closing(connect.open_broker(app_for(server.url))) as broker,
    ):
        with pytest.raises(StoreFull, match="takes no more data"):
            fill(broker)
        broker.register("forms:1", ["forms"], 30)
        assert broker.lease("forms:1", ["forms"], 1), "a full server can be drained"


def fill(broker):
    for _ in range(100):
        broker.publish([Message("forms", b"x" * 100_000)])


def test_a_replica_is_not_available_until_it_is_promoted(shared_redis):
    with (
        RedisServer(options=("--replicaof", "127.0.0.1", str(shared_redis.port))) as replica,
        closing(connect.open_broker(app_for(replica.url))) as broker,
    ):
        for send in (
            lambda: broker.publish([Message("forms", b"a")]),
            lambda: broker.register("forms:1", ["forms"], 30),
        ):
            with pytest.raises(StoreUnavailable, match=r"(?i)replica"):
                send()
        replica.client().replicaof("NO", "ONE")
        round_trip(broker)


def test_a_server_that_is_loading_is_not_available():
    with RedisServer() as server:
        with server.client() as client, client.pipeline(transaction=False) as pipe:
            for n in range(1000):
                pipe.set(f"key{n}", os.urandom(1000))
            pipe.execute()
            client.save()
        server.kill()
        with closing(connect.open_broker(app_for(server.url))) as broker:
            process = subprocess.Popen(slowly_loading(server), stdout=subprocess.DEVNULL)
            try:
                seen = []
                wait_until(lambda: is_loading(broker, seen), 15, lambda: f"it never said that it is loading: {seen}")
            finally:
                process.kill()
                process.wait()


def slowly_loading(server):
    """The command that starts this server once more, and has it answer while it loads."""
    place = ["--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(server.directory)]
    pace = ["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"]
    return [*die_with_parent(), str(redis_program()), *place, *pace]


def is_loading(broker, seen):
    try:
        broker.ping()
    except StoreUnavailable as error:
        seen.append(str(error))
        return "loading" in str(error).lower()
    return False


class OldRedis(socketserver.StreamRequestHandler):
    """Answers as a server of another version does: nothing older than 6.2 can be had here."""

    replies: ClassVar[dict[bytes, bytes]] = {}

    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                self.rfile.readline()
                words.append(self.rfile.readline().strip().upper())
            self.wfile.write(self.replies.get(words[0], b"-ERR unknown command\r\n"))


HELLO_61 = b"%3\r\n$5\r\nproto\r\n:3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.1.0\r\n"


@pytest.mark.parametrize(("hello", "version"), [(b"-ERR unknown command `HELLO`\r\n", "5.0"), (HELLO_61, "6.1")])
def test_a_server_that_is_too_old_is_said_to_be_too_old(hello, version):
    handler = type("Handler", (OldRedis,), {"replies": {b"HELLO": hello}})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with closing(connect.open_broker(app_for(f"redis://127.0.0.1:{server.server_address[1]}/0"))) as broker:
            with pytest.raises(SchemaError, match=rf"version {version}; .* 6\.2"):
                broker.ping()
            broker.close()
        server.shutdown()


def test_a_cluster_is_refused_with_the_way_out(tmp_path):
    with RedisServer(options=("--databases", "1", "--cluster-enabled", "yes")) as server:
        with (
            closing(connect.open_broker(app_for(server.url))) as broker,
            pytest.raises(ConfigurationError, match="Sentinel"),
        ):
            broker.publish([Message("forms", b"hello")])
        with Stage(tmp_path) as stage:
            worker = stage.worker(broker=server.url)
            worker.launch()
            assert worker.wait() == 1
            assert "Redis Cluster" in worker.log()


# -- other ways to the server, other names in it -----------------------------------------------------------------------


def test_a_unix_socket_for_queues_and_results(tmp_path):
    path = tmp_path / "redis.sock"
    with RedisServer(options=("--unixsocket", str(path))):
        url = f"redis+socket://{path}?virtual_host=3"
        with Stage(tmp_path, url, app=APP) as stage, stage.worker():
            assert stage.send("note", "k").get(timeout=10) == "k"
            assert stage.broker.shares_store(connect.open_backend(stage.client))


def test_a_socket_is_written_as_celery_writes_it():
    with pytest.raises(ConfigurationError, match=r"redis\+socket:///tmp/redis.sock"):
        connect.open_broker(app_for("unix:///tmp/redis.sock"))


STOCK_WORKER = """
import os, sys, time
from celery import Celery
app = Celery("stock", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.broker_transport_options = app.conf.result_backend_transport_options = {"global_keyprefix": "shop:"}
app.conf.worker_enable_remote_control = False
@app.task(name="tests.apps.forms.whose")
def whose(): time.sleep(0.02); return "stock"
app.worker_main(["worker", "--pool=solo", "--loglevel=INFO", "--without-gossip", "--without-mingle", "-n", "stock@test"])
"""


def test_a_key_prefix_is_shared_with_a_stock_worker(redis_url, shared_redis, tmp_path):
    prefix = {"global_keyprefix": "shop:"}
    conf = {"broker_transport_options": prefix, "result_backend_transport_options": prefix}
    with Stage(tmp_path, redis_url, app=APP, conf=conf) as stage:
        log = (tmp_path / "stock.log").open("wb")
        stock = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-c", STOCK_WORKER],
            env={**os.environ, "TEST_BROKER": redis_url}, stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
        try:
            wait_until(lambda: b"ready" in (tmp_path / "stock.log").read_bytes(), 30, "the stock worker did not start")
            with stage.worker():
                results = [stage.send("whose") for _ in range(30)]
                answers = {result.get(timeout=20) for result in results}
            assert answers == {"stock", "celeriac"}
        finally:
            stock.terminate()
            stock.wait(20)
            log.close()
        with shared_redis.client(int(redis_url.rpartition("/")[2])) as client:
            assert all(key.startswith(b"shop:") for key in client.keys("*"))


def test_valkey(tmp_path, monkeypatch):
    program = os.environ.get("VALKEY_SERVER") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no valkey-server on this machine")
    monkeypatch.setenv("REDIS_SERVER", program)
    with RedisServer() as server, Stage(tmp_path, server.url, app=APP) as stage, stage.worker():
        assert "valkey" in str(server.client().info("server")).lower()
        results = stage.send_many("note_late", [f"k{n}" for n in range(50)])
        later = stage.send("note", "later", countdown=0.2)
        assert [result.get(timeout=10) for result in results] == [f"k{n}" for n in range(50)]
        assert later.get(timeout=10) == "later"
        assert stage.broker.shares_store(connect.open_backend(stage.client))


def test_the_connection_of_a_thread_is_closed_when_the_thread_ends(shared_redis, redis_url):
    app = Celery("threads", broker=redis_url, backend=redis_url, set_as_current=False)
    with closing(connect.open_broker(app)) as broker, shared_redis.client() as watcher:
        broker.publish([Message("images", b"a")])
        gc.disable()
        try:
            before = len(watcher.client_list())
            for _ in range(5):
                thread = threading.Thread(target=broker.publish, args=([Message("images", b"a")],))
                thread.start()
                thread.join()
            wait_until(lambda: len(watcher.client_list()) <= before, 5)
        finally:
            gc.enable()
