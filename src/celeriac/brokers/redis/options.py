"""Where a Redis server is and how to talk to it; shared by the broker and the result store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class SentinelOptions:
    """Sentinels to ask where the master is."""

    hosts: tuple[tuple[str, int], ...]
    """Host and port of each."""
    master_name: str
    min_other_sentinels: int = 0
    """A sentinel that knows fewer others is not believed."""
    client_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for connections to the sentinels themselves (kombu's ``sentinel_kwargs``): their password, TLS."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How to reach a server, and what its keys look like."""

    url: str
    """``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them: database number as path.  With :attr:`sentinel` its
    host does not count."""
    key_prefix: str = ""
    """Put before every key (kombu's ``global_keyprefix``)."""
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)
    """Each step has a list of its own; a message goes to the highest step that is not above its priority."""
    separator: str = "\x06\x16"
    """Between a queue's name and its step in the names of the lists."""
    connect_timeout: float = 5.0
    """Seconds until an attempt to connect is given up.  Too low fails on a busy network; too high makes a worker slow to
    see that a server is gone."""
    answer_timeout: float = 10.0
    """Seconds until a server that does not answer counts as gone.  Must be longer than the longest script (about 10 ms
    for 1,000 messages)."""
    dead_limit: int = 10_000
    """How many dead letters are kept, about; the oldest go first."""
    client_options: dict[str, Any] = field(default_factory=dict)
    """More keyword arguments for :class:`redis.ConnectionPool`, such as TLS settings."""
    sentinel: SentinelOptions | None = None
    """How to find the server when it is not in the URL."""

    def safe_url(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.url)
        if self.sentinel is not None:
            hosts = ",".join(f"{host}:{port}" for host, port in self.sentinel.hosts)
            return f"sentinel://{hosts}{parts.path} (master {self.sentinel.master_name})"
        if not parts.password:
            return self.url
        user = f"{parts.username or ''}:**@"
        return urlunsplit(parts._replace(netloc=user + parts.netloc.rpartition("@")[2]))

    def user(self) -> str:
        """The name that the server knows this user by."""
        return urlsplit(self.url).username or self.client_options.get("username") or "default"
