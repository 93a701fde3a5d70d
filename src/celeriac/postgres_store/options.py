"""Where a PostgreSQL database is and how to talk to it; shared by the broker and the result store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from celeriac.errors import ConfigurationError

DEFAULT_SCHEMA = "celeriac"

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,39}")
"""What needs no quotes, and leaves room in 63 bytes for the names of channels."""

_SYNCHRONOUS = frozenset({"on", "off", "local", "remote_write", "remote_apply"})

_SCHEME = re.compile(r"^[a-z+]+://", re.IGNORECASE)
_PASSWORD = re.compile(r"^(\w+://[^:@/?#]*):.*@")
_PASSWORD_OPTION = re.compile(r"([?&](?:ssl)?password=)[^&#]*")


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How to reach a database, and what is ours in it.  Times are in seconds."""

    url: str
    """``postgresql://user:password@host:port/database?option=…``, as libpq reads it: ``sslmode``, ``sslrootcert``,
    ``target_session_attrs``, several hosts, …"""
    schema: str = DEFAULT_SCHEMA
    """Of the tables.  Broker and results share a store when both name the same one in the same database."""
    application_name: str = "celeriac"
    """As the server shows it in ``pg_stat_activity``, unless the URL names one."""
    connect_timeout: float = 5.0
    """Until an attempt to connect is given up.  Too low fails on a busy network; too high makes a worker slow to see that a
    server is gone.  libpq counts in whole seconds, two at least."""
    answer_timeout: float = 10.0
    """Until a server that does not answer counts as gone.  Must be longer than the longest statement (about 50 ms for
    1,000 messages) and the longest that a disk may take to sync."""
    synchronous_commit: str | None = None
    """``off`` does not wait for the disk at commit: a killed server still loses nothing, but a power cut or a crash of its
    system may lose the last fraction of a second.  ``None`` leaves it to the server."""
    notify: bool | None = None
    """Whether LISTEN works on this connection.  ``None`` finds out: not through a pooler such as PgBouncer, and then waiting
    means looking every few milliseconds."""
    migrate: bool = True
    """Whether to bring the schema up to date at first use, when this role may."""
    dead_limit: int = 10_000
    """How many dead letters are kept; the oldest go first."""

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for what cannot work."""
        if not _SCHEMA.fullmatch(self.schema):
            raise ConfigurationError(
                f"schema {self.schema!r}: use up to 40 lower-case letters, digits and underscores, not beginning with a digit"
            )
        if self.synchronous_commit is not None and self.synchronous_commit not in _SYNCHRONOUS:
            known = ", ".join(sorted(_SYNCHRONOUS))
            raise ConfigurationError(f"synchronous_commit is one of {known}, not {self.synchronous_commit!r}")

    @property
    def conninfo(self) -> str:
        """The URL with a scheme that libpq knows."""
        return _SCHEME.sub("postgresql://", self.url, count=1)

    def safe_url(self) -> str:
        """The URL without passwords."""
        return safe_url(self.url)


def safe_url(url: str) -> str:
    """The URL without passwords, even when it is not well-formed."""
    return _PASSWORD_OPTION.sub(r"\1**", _PASSWORD.sub(r"\1:**@", url))
