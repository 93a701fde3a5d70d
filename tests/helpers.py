"""Small things that tests, benchmarks and the demo share."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PORTS = range(12_000, 32_000)
"""Below the range from which the system takes the local ports of outgoing connections, so that a server which is
down for a moment finds its port free when it starts again."""


def wait_until(
    condition: Callable[[], T],
    timeout: float = 10.0,
    message: str | Callable[[], str] = "the condition did not become true",
    interval: float = 0.01,
) -> T:
    """Call ``condition`` every ``interval`` seconds until it returns something true; return that.

    Args:
        condition: what to wait for.  What it raises is raised.
        timeout: seconds.
        message: what went wrong, when it does; a function is called at that moment.
        interval: seconds between two calls.

    Raises:
        TimeoutError: it was never true within ``timeout``.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            text = message() if callable(message) else message
            raise TimeoutError(f"{text} (waited {timeout:g} s)")
        time.sleep(interval)
    return value


def free_port() -> int:
    """A loopback port that nobody listens on.  Another process may still take it first: be ready to try again."""
    for port in random.sample(PORTS, k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on the loopback interface")
