"""The servers and the proxy that the other tests stand on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.helpers import wait_until
from tests.proxy import FaultProxy
from tests.servers import RedisServer, ServerMissing, redis_program

ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def through_proxy(proxy):
    with redis.Redis.from_url(proxy.url, socket_timeout=0.5, retry=ONCE) as client:
        yield client


def test_a_persistent_server_keeps_what_it_confirmed_across_a_kill(redis_server):
    with redis_server.client() as client:
        client.set("a", "1")

        redis_server.kill()
        redis_server.start()

        assert client.get("a") == b"1"


def test_a_server_restarts_on_its_port(redis_server):
    url, pid = redis_server.url, redis_server.pid

    redis_server.restart()

    assert redis_server.url == url
    assert redis_server.pid != pid


def test_a_paused_server_answers_after_it_resumes(redis_server):
    with redis_server.client(socket_timeout=0.3, retry=ONCE) as client:
        client.ping()
        redis_server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()

        redis_server.resume()

        assert client.ping()


def test_a_closed_server_leaves_no_process_and_no_files():
    with RedisServer() as server:
        pid, directory = server.pid, server.directory

    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_dies_with_a_killed_parent():
    assert redis_program()
    script = "from tests.servers import RedisServer; print(RedisServer().start().pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())

        parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not is_running(pid), message="the server outlived its parent")


def is_running(pid):
    """A zombie that init has not yet collected is not running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_server_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setattr("tests.servers.BUNDLED_REDIS", tmp_path / "missing")

    with pytest.raises(ServerMissing, match="apt-get install redis-server"):
        redis_program()


def test_each_test_has_a_database_of_its_own(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_the_proxy_carries_requests_and_replies(through_proxy, redis_url):
    through_proxy.set("a", b"x" * 1_000_000)

    with redis.Redis.from_url(redis_url) as direct:
        assert direct.strlen("a") == 1_000_000
    assert len(through_proxy.get("a")) == 1_000_000


def test_the_proxy_delays_each_direction(through_proxy, proxy):
    through_proxy.ping()
    proxy.delay(0.05)
    begin = time.monotonic()

    through_proxy.ping()

    assert time.monotonic() - begin >= 0.1


def test_a_delay_holds_bytes_without_pacing_them(through_proxy, proxy):
    through_proxy.ping()
    proxy.delay(0.05)
    pipeline = through_proxy.pipeline(transaction=False)
    for _ in range(1000):
        pipeline.set("a", b"x" * 1000)
    begin = time.monotonic()

    pipeline.execute()

    assert time.monotonic() - begin < 1.0


def test_a_cut_resets_the_connections_that_are_open(through_proxy, proxy):
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        wait_until(lambda: proxy.connections == 1)

        proxy.cut()

        assert proxy.connections == 0
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert through_proxy.ping()


def test_a_refusing_proxy_is_there_again_after_it_resumes(through_proxy, proxy):
    through_proxy.ping()
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            through_proxy.ping()

    proxy.resume()

    assert through_proxy.ping()


def test_a_black_hole_accepts_and_never_answers(through_proxy, proxy):
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        through_proxy.ping()

    proxy.resume()

    assert through_proxy.ping()


def test_a_lost_reply_means_done_but_not_known(through_proxy, proxy, redis_url):
    through_proxy.ping()
    proxy.lose_replies()

    with pytest.raises(redis.ConnectionError):
        through_proxy.set("a", "1")

    with redis.Redis.from_url(redis_url) as direct:
        assert direct.get("a") == b"1"


def test_a_proxy_to_a_dead_server_resets(redis_server):
    with FaultProxy(redis_server.port) as proxy, redis.Redis.from_url(proxy.url, retry=ONCE) as client:
        client.ping()
        redis_server.kill()

        with pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError):
            client.ping()


def test_waiting_in_vain_says_what_for():
    with pytest.raises(TimeoutError, match=r"no pie \(waited 0\.05 s\)"):
        wait_until(lambda: False, timeout=0.05, message="no pie")
