"""One Redis server as this package uses it: connections, scripts, and errors in our own words."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.wire import Wire
from celeriac.errors import (
    ConfigurationError,
    MissingExtra,
    OwnerLost,
    SchemaError,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("Redis", "redis") from error

OLDEST_SERVER = (6, 2)
"""``BLMOVE`` and ``RPOP`` with a count came with it."""

UNAVAILABLE = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
)

ALLOW_OOM = b"#!lua flags=allow-oom\n"
"""Redis 7 lets scripts that say so run when the server is out of memory: leasing moves data and settling frees it, so that
workers can drain a full server.  On older servers they wait until there is room."""


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
        known = self.pool.connection_kwargs
        self.address = (known.get("host"), known.get("port"), known.get("path"))
        self.database = int(known.get("db") or 0)
        self.client: redis.Redis = redis.Redis(connection_pool=self.pool)
        self._wire = Wire(self.pool)

    @contextmanager
    def call(self) -> Iterator[redis.Redis]:
        """One round trip: counts it, and translates what goes wrong."""
        self._prepare()
        self.round_trips += 1
        with translated(self.options):
            yield self.client

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
            version = server_version(self.client)
            if version < OLDEST_SERVER:
                raise SchemaError(
                    f"Redis at {self.options.safe_url()} is version {version[0]}.{version[1]}; "
                    f"Celeriac needs {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer (or Valkey)"
                )
            head = ALLOW_OOM if version >= (7, 0) else b""
            for script in self._scripts.values():
                script.sha = self.client.script_load(head + script.source)
        self.round_trips += 1

    def close(self) -> None:
        """Give up the connections."""
        self._wire.close()
        self.pool.disconnect()


def make_pool(options: RedisOptions) -> redis.ConnectionPool:
    """Connections that never try again by themselves: what is safe to repeat is for the caller to know."""
    arguments: dict[str, Any] = {
        "socket_timeout": options.answer_timeout,
        "socket_connect_timeout": options.connect_timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        **options.client_options,
    }
    if options.url.startswith("unix://"):
        arguments.pop("socket_keepalive")
    try:
        return redis.ConnectionPool.from_url(options.url, **arguments)
    except ValueError as error:
        raise ConfigurationError(f"{options.safe_url()} is not a Redis URL: {error}") from error


def server_version(client: redis.Redis) -> tuple[int, int]:
    """Major and minor version; Valkey answers with the Redis version that it is compatible to."""
    hello: Any = client.execute_command("HELLO")
    pairs = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    text = next(value for key, value in pairs.items() if key in (b"version", "version"))
    major, minor = (text.decode() if isinstance(text, bytes) else text).split(".")[:2]
    return int(major), int(minor)


@contextmanager
def translated(options: RedisOptions) -> Iterator[None]:
    """Raise redis-py's errors as this package's own."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise translate(error, options) from error
    except OSError as error:
        raise StoreUnavailable(f"Redis at {options.safe_url()} cannot be reached: {error}") from error


def translate(error: redis.exceptions.RedisError, options: RedisOptions) -> Exception:
    """This package's error for one of redis-py's."""
    where = f"Redis at {options.safe_url()}"
    text = str(error)
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
        return ConfigurationError(f"{where} refuses this user: {text}. Check the URL's user, password and its ACL")
    if isinstance(error, UNAVAILABLE):
        return StoreUnavailable(f"{where} is not available: {text}")
    if "OWNERLOST" in text:
        return OwnerLost("the leases of this worker slot were taken over, or the store has lost them")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        return StoreFull(f"{where} takes no more data: {text}")
    if text.startswith(("MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "UNKILLABLE", "BUSY")):
        return StoreUnavailable(f"{where} is not available: {text}")
    return StoreError(f"{where} answered: {text}")
