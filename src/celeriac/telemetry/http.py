"""The worker's HTTP endpoint: ``/metrics``, ``/livez``, ``/readyz`` and ``/startupz``.

It runs in threads of the supervisor and reads values that the supervisor keeps anyway.  It has no authentication and
shows names of tasks and queues, as Prometheus endpoints do; bind it to where only the monitoring can reach it.
"""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import threading
import weakref
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from celeriac.errors import ConfigurationError, MissingExtra
from celeriac.telemetry.health import PROBES, Health, Limits, Probe, Verdict

logger = logging.getLogger(__name__)

DEFAULT_HOST = "0.0.0.0"
"""All IPv4 addresses: a kubelet and a Prometheus come from other addresses than loopback."""

MAX_CONNECTIONS = 32
"""Requests answered at once; further connections are closed.  Bounds the threads that a flood can make."""

PLAIN = "text/plain; charset=utf-8"
_INDEX = "\n".join(["celeriac worker", "/metrics", *PROBES, ""])


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class Endpoint:
    """Serves the pages from :meth:`start` until :meth:`stop`; also a context manager.

    Args:
        host: address to bind: ``0.0.0.0`` for all of IPv4, ``::`` for IPv6 and IPv4, ``127.0.0.1`` for this machine.
        port: TCP port; 0 takes a free one.
        health: tells the worker's state; must be quick.
        exposition: makes the metrics page from the ``Accept`` header: content type and bytes.  ``None`` when the
            extra ``metrics`` is not installed; ``/metrics`` then says so.
        limits: when the worker is no longer well.

    Raises:
        ConfigurationError: the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        health: Callable[[], Health],
        exposition: Callable[[str], tuple[str, bytes]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._health = health
        self._exposition = exposition
        self._limits = limits or Limits()
        self._server = _bind(host, port, self.page)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="celeriac-http", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer.  Connections made since the object was created are answered too."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and give the port free.  Calling it twice does no harm."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def page(self, target: str, accept: str) -> Page:
        """Answer a request for a path (with its query)."""
        url = urlsplit(target)
        if url.path == "/metrics":
            return self._metrics(accept)
        if url.path in PROBES:
            return self._probe(PROBES[url.path], "verbose" in parse_qs(url.query, keep_blank_values=True))
        if url.path == "/":
            return Page(HTTPStatus.OK, PLAIN, _INDEX.encode())
        return Page(HTTPStatus.NOT_FOUND, PLAIN, _INDEX.encode())

    def _metrics(self, accept: str) -> Page:
        if self._exposition is None:
            return Page(HTTPStatus.NOT_IMPLEMENTED, PLAIN, f"{MissingExtra('/metrics', 'metrics')}\n".encode())
        content_type, body = self._exposition(accept)
        return Page(HTTPStatus.OK, content_type, body)

    def _probe(self, probe: Probe, verbose: bool) -> Page:
        verdict: Verdict = probe(self._health(), self._limits)
        status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, PLAIN, verdict.text(verbose=verbose).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that reads slowly must not hold up the worker's shutdown
    request_queue_size = 64

    def __init__(self, host: str, port: int, page: Callable[[str, str], Page]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page = page
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)
        _servers.add(self)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which waits for DNS."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""
        logger.debug("An HTTP request from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0
    server_version = "celeriac"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s %s", self.client_address[0], format % args)

    def _answer(self, *, with_body: bool) -> None:
        status, content_type, body = self._page()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _page(self) -> Page:
        try:
            return self.server.page(self.path, self.headers.get("Accept", ""))
        except Exception as error:
            logger.exception("Answering %s failed", self.path)
            text = f"{type(error).__name__}: {error}\n"
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, PLAIN, text.encode())


_servers: weakref.WeakSet[_Server] = weakref.WeakSet()


def _bind(host: str, port: int, page: Callable[[str, str], Page]) -> _Server:
    try:
        return _Server(host, port, page)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"Cannot serve HTTP on {host} port {port}: {error}.  Choose another port with --http-port "
            "(each worker on a machine needs its own), or another address with --http-host."
        ) from error


def _close_inherited_sockets() -> None:
    """A forked slot that outlives its supervisor must not keep the port."""
    for server in list(_servers):
        server.socket.close()


os.register_at_fork(after_in_child=_close_inherited_sockets)
