"""Adds round-trip time: a TCP proxy that holds bytes for a fixed time in each direction, as a process of its own.

It holds and does not pace, so throughput is not limited.  It counts round trips: how often a client sends something on
a connection whose last word was the server's.

``python -m benchmarks.proxy SERVER_PORT SECONDS`` prints the port it listens on.  For each line on standard input it
prints the number of round trips so far; when standard input ends, so does it.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

CHUNK = 1 << 18
LISTEN = 512


@dataclass(slots=True, eq=False)
class End:
    """One side of a connection."""

    socket: socket.socket
    is_client: bool
    peer: End | None = None
    unsent: bytearray = field(default_factory=bytearray)
    spoke_last: bool = False
    closed: bool = False


class Held(NamedTuple):
    due: float
    to: End
    data: bytes
    """Empty: the other side has closed."""


class Proxy:
    """All connections in one loop.  The delay is the same for all bytes, so one queue holds them in the order due."""

    def __init__(self, server_port: int, delay: float) -> None:
        self.round_trips = 0
        self._server = ("127.0.0.1", server_port)
        self._delay = delay
        self._held: deque[Held] = deque()
        self._ends: dict[int, End] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=LISTEN)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            # select() waits with microsecond precision, epoll only in whole milliseconds.
            select.select([self._epoll.fileno()], [], [], self._pause())
            for descriptor, events in self._epoll.poll(0):
                if descriptor == sys.stdin.fileno():
                    if not self._report():
                        return
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._ends:
                    self._serve(self._ends[descriptor], events)
            self._release()

    def _pause(self) -> float | None:
        return max(0.0, self._held[0].due - time.monotonic()) if self._held else None

    def _report(self) -> bool:
        line = sys.stdin.readline()
        if line:
            print(self.round_trips, flush=True)
        return bool(line)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        client = End(accepted, is_client=True)
        server = End(socket.create_connection(self._server), is_client=False, spoke_last=True)
        client.peer, server.peer = server, client
        for end in (client, server):
            end.socket.settimeout(0)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket.fileno()] = end
            self._epoll.register(end.socket, select.EPOLLIN)

    def _serve(self, end: End, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send(end)
        if events & ~select.EPOLLOUT and not end.closed:
            self._receive(end)

    def _receive(self, end: End) -> None:
        try:
            data = end.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        assert end.peer is not None
        self._held.append(Held(time.monotonic() + self._delay, end.peer, data))
        if not data:
            self._epoll.modify(end.socket, 0)
        elif not end.spoke_last:
            end.spoke_last, end.peer.spoke_last = True, False
            self.round_trips += end.is_client

    def _release(self) -> None:
        now = time.monotonic()
        while self._held and self._held[0].due <= now:
            _, end, data = self._held.popleft()
            if end.closed:
                continue
            if data:
                end.unsent += data
                self._send(end)
            else:
                self._close(end)

    def _send(self, end: End) -> None:
        try:
            del end.unsent[: end.socket.send(end.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._close(end)
            return
        self._epoll.modify(end.socket, select.EPOLLIN | (select.EPOLLOUT if end.unsent else 0))

    def _close(self, end: End) -> None:
        for each in (end, end.peer):
            if each is not None and not each.closed:
                each.closed = True
                del self._ends[each.socket.fileno()]
                self._epoll.unregister(each.socket)
                each.socket.close()


def main() -> None:
    proxy = Proxy(int(sys.argv[1]), float(sys.argv[2]))
    print(proxy.port, flush=True)
    proxy.run()


if __name__ == "__main__":
    main()
