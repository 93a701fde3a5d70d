"""Starts the reference system's processes: API, mail server, image pool, email pool."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from demo.children import Child, Children, DemoError
from demo.settings import HOME_VARIABLE, ShopSettings

HOST = "127.0.0.1"
EMAIL_THREADS = 8

POOL_QUEUES = {"images": "images", "email": "email,orders"}
"""What each pool serves.  Starting an order is a matter of a few messages, so the threads do it."""

READY_SECONDS = 90.0
"""How long the system may take to start.  Slow machines need most of it to import libraries."""

DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671, "postgresql": 5432, "postgres": 5432}


@dataclass(frozen=True, slots=True)
class System:
    """The running reference system."""

    children: Children
    image_pool: Child
    url: str
    """Of the API."""
    pools: tuple[str, ...]
    """The commands that started the two pools, for people to read."""
    metrics: tuple[str, ...]
    """URLs of the two pools' metrics, if they were asked for."""


def image_slots() -> int:
    """One for each core, and two at least: while one is down, the other works on."""
    return max(2, min(os.cpu_count() or 1, 8))


def listen(port: int, purpose: str) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        DemoError: the port is in use or forbidden.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise DemoError(f"Cannot listen on port {port} for the {purpose}: {error}. Choose another port.") from error


def check_reachable(url: str) -> None:
    """Raises DemoError when nothing listens where a URL points to."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        return
    host = parts.hostname or "localhost"
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        raise DemoError(f"Nothing answers at {parts.scheme}://{host}:{port}: {error}.") from error


def start(children: Children, api: socket.socket, mail: socket.socket, seed: int, *, metrics: bool) -> System:
    """Start everything.  The children inherit the sockets, so connections wait in them until a child is ready.

    Args:
        children: what starts them.
        api: the API's listening socket.
        mail: the mail server's.
        seed: of the mail server's failures.
        metrics: whether the pools answer ``/metrics``.
    """
    children.start("mail server", _module("mailserver", mail.fileno(), seed), [mail.fileno()])
    ports = [_free_port() for _ in range(2)] if metrics else [None, None]
    images = _pool("images", "processes", image_slots(), ports[0])
    email = _pool("email", "threads", EMAIL_THREADS, ports[1])
    image_pool = children.start("image pool", [celeriac_program(), *images])
    children.start("email pool", [celeriac_program(), *email])
    children.start("api", _module("api", api.fileno()), [api.fileno()])
    url = f"http://{HOST}:{api.getsockname()[1]}"
    commands = tuple(shlex.join(["celeriac", *arguments]) for arguments in (images, email))
    return System(children, image_pool, url, commands, tuple(f"http://{HOST}:{port}/metrics" for port in ports if port))


def wait_ready(system: System) -> float:
    """Wait until a task has gone through each queue; return the seconds it took.

    Raises:
        DemoError: a process ended, or time ran out.
    """
    started = time.monotonic()
    with httpx.Client(base_url=system.url, timeout=10.0) as client:
        while time.monotonic() - started < READY_SECONDS:
            system.children.check()
            try:
                if client.get("/health").is_success:
                    return time.monotonic() - started
            except httpx.TransportError:  # not even the API is there yet
                time.sleep(0.05)
    raise DemoError(f"The workers did not answer within {READY_SECONDS:g} s.{system.children.tails()}")


def environment(shop: ShopSettings, *, inherit: bool = False) -> dict[str, str]:
    """What the children find the shop with; with ``inherit`` all that they need."""
    return {**(os.environ if inherit else {}), HOME_VARIABLE: str(shop.home), "PYTHONUNBUFFERED": "1"}


def _module(name: str, *arguments: int) -> list[str]:
    return [sys.executable, "-m", f"demo.{name}", *map(str, arguments)]


def _free_port() -> int:
    with listen(0, "metrics") as probe:
        return int(probe.getsockname()[1])


def _pool(queue: str, pool: str, concurrency: int, http_port: int | None) -> list[str]:
    limit = ["--time-limit=60"] if pool == "processes" else []  # a thread cannot be killed
    http = [f"--http-port={http_port}", f"--http-host={HOST}"] if http_port else []
    return [
        *("-A", "demo.shop", "worker", f"--pool={pool}", f"--concurrency={concurrency}"),
        *("-Q", POOL_QUEUES[queue], "-n", f"{queue}@%h", "--loglevel=INFO", *limit, *http),
    ]


def celeriac_program() -> str:
    """The ``celeriac`` command that belongs to this Python."""
    beside = Path(sys.executable).with_name("celeriac")
    command = str(beside) if beside.exists() else shutil.which("celeriac")
    if command is None:
        raise DemoError("The celeriac command is missing: run `make install`.")
    return command
