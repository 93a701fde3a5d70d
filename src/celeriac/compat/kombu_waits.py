"""How long kombu's own connections wait for a server that has fallen silent.

Left to themselves they wait for ever: a broadcast, ``celery inspect`` or a worker's remote control would hang for as long as a network
is cut in two, and a listener would never notice that nobody can reach it any more.
"""

from __future__ import annotations

import socket
from typing import Any

from celeriac.compat import connect_rabbitmq, connect_redis

ANSWER_SECONDS = 10.0
"""As the engines wait.  Longer than kombu's longest wait on the server, which is a second."""

KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A connection on which nothing is heard for a minute is broken: listeners have no other way to know."""


def bounded(scheme: str, given: dict[str, Any]) -> dict[str, Any]:
    """Transport options that bound what those given leave open, for a broker URL of this scheme."""
    defaults: dict[str, Any] = {}
    if scheme in connect_rabbitmq.SCHEMES:
        defaults = {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    elif scheme in connect_redis.SCHEMES:
        options = {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}
        defaults = {
            "socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS,
            "socket_keepalive": True, "socket_keepalive_options": options,
        }  # fmt: skip
    return {name: value for name, value in defaults.items() if name not in given}
