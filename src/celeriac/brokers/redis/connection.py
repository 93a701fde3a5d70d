"""One Redis server as this package uses it: connections, scripts, and errors in our own words."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

import redis

from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.pools import address_of, make_pool
from celeriac.brokers.redis.translation import is_readonly, translated
from celeriac.brokers.redis.wire import Wire
from celeriac.errors import ConfigurationError, SchemaError

OLDEST_SERVER = (6, 2)
"""``BLMOVE`` and ``RPOP`` with a count came with it."""

ALLOW_OOM = b"#!lua flags=allow-oom\n"
"""Redis 7 lets scripts that say so run when the server is out of memory: leasing moves data and settling frees it, so that
workers can drain a full server.  On older servers they wait until there is room."""


ADDS = frozenset({"publish", "publish_within"})
"""Scripts that only add, which a server out of memory is to refuse."""

SHARED = {
    "settle": ("results", "keys"),
    "store": ("results",),
    "publish_claimed": ("keys",),
    "kv_claim": ("keys",),
    "kv_apply": ("keys",),
}
"""Files with functions that scripts start with."""


class Script:
    """A Lua script from ``lua/``, and its digest on the server."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        folder = resources.files("celeriac.brokers.redis").joinpath("lua")
        files = (*SHARED.get(name, ()), name)
        self.name = name
        self.source = b"".join(folder.joinpath(f"{file}.lua").read_bytes() for file in files)
        self.sha = ""


class RedisConnection:
    """A pool of connections to one server, the scripts that this package runs there, and a count of round trips."""

    def __init__(self, options: RedisOptions, scripts: Sequence[str]) -> None:
        self.options = options
        self.round_trips = 0
        self._scripts = {name: Script(name) for name in scripts}
        self._lock = threading.Lock()
        self._prepared = False
        self.pool = make_pool(options)
        self.address = address_of(options, self.pool)
        self.database = int(self.pool.connection_kwargs.get("db") or 0)
        self.client: redis.Redis = redis.Redis(connection_pool=self.pool)
        self._wire = Wire(self.pool)

    @contextmanager
    def call(self) -> Iterator[redis.Redis]:
        """One round trip: counts it, and translates what goes wrong."""
        self._prepare()
        self.round_trips += 1
        with translated(self.options):
            try:
                yield self.client
            except redis.exceptions.RedisError as error:
                if is_readonly(error):  # it was the master once; see wire.py
                    self.pool.disconnect()
                raise

    def run(self, script: str, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run one script."""
        return self.run_all([(script, keys, args)])[0]

    def run_all(self, calls: Sequence[tuple[str, Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """Run several scripts in one round trip; raise the first error."""
        self._prepare()
        self.round_trips += 1
        with translated(self.options):
            try:
                return self._send(calls)
            except redis.exceptions.NoScriptError:
                # The server was restarted or its scripts were flushed.  Nothing of a pipeline whose first script was
                # missing has run, because all are loaded and lost together.
                self._load()
                return self._send(calls)

    def execute(self, *command: Any) -> Any:
        """Run one plain command."""
        self._prepare()
        self.round_trips += 1
        with translated(self.options):
            (reply,) = self._wire.execute([command])
            if isinstance(reply, Exception):
                raise reply
            return reply

    def _send(self, calls: Sequence[tuple[str, Sequence[Any], Sequence[Any]]]) -> list[Any]:
        commands = [("EVALSHA", self._scripts[name].sha, len(keys), *keys, *args) for name, keys, args in calls]
        replies = self._wire.execute(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _prepare(self) -> None:
        if not self._prepared:
            with self._lock:
                if not self._prepared:
                    self._load()
                    self._prepared = True

    def _load(self) -> None:
        with translated(self.options):
            server = who_is_there(self.client)
            self._check(server)
            head = ALLOW_OOM if server.version >= (7, 0) else b""
            for script in self._scripts.values():
                script.sha = self.client.script_load((b"" if script.name in ADDS else head) + script.source)
        self.round_trips += 1

    def _check(self, server: Server) -> None:
        where = f"Redis at {self.options.safe_url()}"
        if server.version < OLDEST_SERVER:
            version, oldest = (".".join(map(str, each)) for each in (server.version, OLDEST_SERVER))
            raise SchemaError(f"{where} is version {version}; Celeriac needs {oldest} or newer, or Valkey: upgrade it")
        if server.mode == "cluster":
            raise ConfigurationError(
                f"{where} is a node of a Redis Cluster, which cannot write a queue, a lease and a result in one step. "
                "Use a primary with replicas behind Sentinel (sentinel://…), or PostgreSQL or RabbitMQ"
            )
        if server.mode == "sentinel":
            raise ConfigurationError(
                f"{where} is a sentinel and keeps no data: write sentinel://… for redis://…, and its master_name into the "
                "transport options"
            )

    def close(self) -> None:
        """Give up the connections."""
        self._wire.close()
        self.pool.disconnect()


class Server(NamedTuple):
    """What a server says about itself."""

    version: tuple[int, int]
    """Major and minor; Valkey answers with the Redis version that it is compatible to."""
    mode: str
    """``standalone``, ``cluster`` or ``sentinel``."""


def who_is_there(client: redis.Redis) -> Server:
    """Ask the server."""
    try:
        hello: Any = client.execute_command("HELLO")
    except redis.exceptions.ResponseError as error:
        if "unknown command" in str(error).lower():  # HELLO came with Redis 6.0
            return Server((5, 0), "standalone")
        raise
    pairs = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    known = {_text(name): value for name, value in pairs.items()}
    major, minor = _text(known["version"]).split(".")[:2]
    return Server((int(major), int(minor)), _text(known.get("mode", "standalone")))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
