"""Where a RabbitMQ is and how to talk to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

CLASSIC, QUORUM = "classic", "quorum"
"""Types of queues."""


@dataclass(frozen=True, slots=True)
class Address:
    """One server of a cluster."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RabbitOptions:
    """A virtual host on one server, or on one of several that stand for each other.  Times are in seconds."""

    addresses: tuple[Address, ...] = (Address("localhost", 5672),)
    """Tried in this order, beginning with the one that worked last."""
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    mechanism: str = "PLAIN"
    """``PLAIN``, ``AMQPLAIN`` or ``EXTERNAL`` (a client certificate names the user)."""
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    """Name that the certificate must have, where it is not that of the address."""
    connect_timeout: float = 4.0
    """For each address.  Too low, and a busy server seems to be away; too high, and failing over takes longer."""
    answer_timeout: float = 10.0
    """How long to wait for an answer or a confirm before the server counts as away."""
    heartbeat: float = 10.0
    """Silence after which either side gives the other up; 0 for never.  Too low, and a body that holds the interpreter's lock
    for as long costs the connection."""
    queue_type: str = CLASSIC
    """``classic`` or ``quorum``: of Celeriac's own queues.  Classic ones are away with the node of a cluster that has them; quorum ones cost
    a write to disk on several nodes for what a slot takes and settles at once."""
    dead_limit: int = 10_000
    """Most dead letters kept; the oldest go first."""

    @property
    def url(self) -> str:
        """For people to read, without password."""
        scheme = "amqps" if self.tls else "amqp"
        vhost = self.vhost if self.vhost != "/" else "/"
        return ";".join(f"{scheme}://{address}/{vhost}" for address in self.addresses)
