"""A real Redis with a replica, and real sentinels that watch over them."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import redis
from typing_extensions import Self

from tests.helpers import wait_until
from tests.servers import RedisServer

MASTER_NAME = "mymaster"


class SentinelServer(RedisServer):
    """One sentinel.

    Args:
        master: what it watches.
        quorum: how many sentinels must find the master down.
    """

    def __init__(self, master: RedisServer, quorum: int) -> None:
        super().__init__()
        self._watched = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} {quorum}"

    def _settings(self, port: int) -> list[str]:
        log = self.directory / "redis.log"
        log.write_text("")
        conf = self.directory / "sentinel.conf"
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {self.directory}", f"logfile {log}", self._watched]
        lines += [
            f"sentinel down-after-milliseconds {MASTER_NAME} 500",
            f"sentinel failover-timeout {MASTER_NAME} 3000",
        ]
        conf.write_text("\n".join(lines) + "\n")
        return [str(conf), "--sentinel"]


class SentinelGroup:
    """A master, a replica and three sentinels, of which two must agree."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start all, and wait until the replica follows and the sentinels know each other."""
        enter = self._stack.enter_context
        try:
            self.master = enter(RedisServer())
            self.replica = enter(RedisServer(options=("--replicaof", "127.0.0.1", str(self.master.port))))
            self.sentinels = [enter(SentinelServer(self.master, 2)) for _ in range(3)]
            wait_until(self._is_complete, 20, "the sentinels did not find each other")
        except BaseException:
            self._stack.close()
            raise
        return self

    def _is_complete(self) -> bool:
        if self.master.client().info("replication")["connected_slaves"] < 1:
            return False
        states = [sentinel.client().sentinel_master(MASTER_NAME) for sentinel in self.sentinels]
        return all(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2 for state in states)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill them all."""
        self._stack.close()

    @property
    def url(self) -> str:
        """As kombu and Celery write it."""
        return ";".join(f"sentinel://127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)

    @property
    def current(self) -> RedisServer:
        """The master that is alive."""
        return self.master if self.master.pid else self.replica

    def wait_for_replica(self) -> None:
        """Wait until the replica has all that the master has."""
        with self.master.client() as client:
            # WAIT is about the writes of its own connection.
            client.set("replicated", 1)
            assert client.wait(1, 10_000) == 1

    def fail_over(self) -> None:
        """Kill the master, without waiting for what comes of it."""
        self.master.kill()

    def wait_for_failover(self) -> None:
        """Wait until the replica is the master."""

        def is_master() -> bool:
            try:
                return bool(self.replica.client().role()[0] == b"master")
            except redis.RedisError:
                return False

        wait_until(is_master, 20, "the replica did not take over")
