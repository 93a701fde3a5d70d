"""A TCP proxy that misbehaves on demand, between a client under test and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from tests.helpers import free_port

T = TypeVar("T")

CHUNK = 65_536
CALL_TIMEOUT = 10.0
"""Seconds that a command to the proxy may take."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 seconds: closing sends a reset instead of an orderly end."""


class Way:
    """One direction: what happens to bytes on their way.  Of the proxy's own loop, once that runs."""

    def __init__(self) -> None:
        self.latency = 0.0
        """Seconds that each byte takes."""
        self.rate = 0.0
        """Bytes per second of one connection; 0: no limit."""
        self.left: int | None = None
        """After how many more bytes, of all connections together, the connection is reset that carries them; then no more."""
        self.carried = 0
        """Bytes that arrived."""
        self.loses = False
        """Whether bytes are swallowed and the connection reset in their place."""
        self.passing = asyncio.Event()
        """Not set: a black hole."""
        self.passing.set()

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What of some bytes arrives, and whether the connection is reset after that."""
        if self.loses:
            return b"", True
        if self.left is None or self.left >= len(data):
            self.left = None if self.left is None else self.left - len(data)
            return data, False
        part, self.left = data[: self.left], None
        return part, True


class FaultProxy:
    """Forwards ``127.0.0.1:port`` to a server on the loopback interface, well or badly.

    Args:
        target_port: the server's port.
        database: for :attr:`url`, the number of a Redis database.
        template: for :attr:`url` of another kind of server, with ``{port}`` in it.

    It runs in a thread of its own.  A command has taken effect when its method returns; commands may come from any
    thread.  Throughput is not limited by :meth:`delay`: bytes are held, not paced; :meth:`limit` paces them.
    """

    def __init__(self, target_port: int, *, database: int = 0, template: str | None = None) -> None:
        self.target = ("127.0.0.1", target_port)
        self.template = template or f"redis://127.0.0.1:{{port}}/{database}"
        self.port = free_port()
        self.accepted = 0
        """Connections accepted so far."""
        self.requests, self.replies = Way(), Way()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._call(self._open())
        return self

    def close(self) -> None:
        """Cut everything and stop listening, for good."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT)
        self._loop.close()

    def __enter__(self) -> Self:
        """Listen."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop for good."""
        self.close()

    @property
    def url(self) -> str:
        """The URL of the database behind it."""
        return self.template.format(port=self.port)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._writers) // 2

    # -- faults ----------------------------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Hold all bytes for this long in each direction: a round trip takes twice that."""
        self._call(self._set("latency", seconds))

    def limit(self, rate: float) -> None:
        """Carry so many bytes per second in each direction of each connection; 0: as many as come."""
        self._call(self._set("rate", rate))

    def cut(self) -> None:
        """Reset all connections that are open.  New ones are served."""
        self._call(self._cut())

    def cut_after(self, count: int, *, replies: bool = False) -> None:
        """Carry so many more bytes of requests, or of replies, and reset the connection on which the next one comes, once."""
        self._call(self._cut_after(self.replies if replies else self.requests, count))

    @property
    def is_cut(self) -> bool:
        """Whether the cut that :meth:`cut_after` has asked for was made."""
        return self.requests.left is None and self.replies.left is None

    def refuse(self) -> None:
        """Reset all connections and refuse new ones, as a server that is down does."""
        self._call(self._shut())

    def black_hole(self, *, requests: bool = True, replies: bool = True) -> None:
        """Accept, read, and never answer: a partition, of both directions or of one.

        After :meth:`resume` what was held is delivered late, as TCP does after a partition.
        """
        self._call(self._hold(requests=requests, replies=replies))

    def lose_replies(self) -> None:
        """Let requests reach the server, and reset the connection in place of its answer.

        The client cannot know whether what it asked for was done.
        """
        self._call(self._lose())

    def resume(self) -> None:
        """Be well again.  Delay and limit stay."""
        self._call(self._resume())

    # -- inside: all of this runs on the proxy's own loop ----------------------------------------------------------

    def _call(self, command: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(CALL_TIMEOUT)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _set(self, name: str, value: float) -> None:
        for way in (self.requests, self.replies):
            setattr(way, name, value)

    async def _cut_after(self, way: Way, count: int) -> None:
        self.requests.left = self.replies.left = None
        way.left = count

    async def _hold(self, *, requests: bool, replies: bool) -> None:
        for way, held in ((self.requests, requests), (self.replies, replies)):
            (way.passing.clear if held else way.passing.set)()

    async def _lose(self) -> None:
        self.replies.loses = True

    async def _resume(self) -> None:
        self.replies.loses = False
        self.requests.left = self.replies.left = None
        await self._hold(requests=False, replies=False)
        if self._server is None:
            await self._open()

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _end(self) -> None:
        await self._shut()
        for _ in range(3):  # what was being accepted meanwhile
            await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # an aborted transport closes its socket in a later turn of the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: _reset(writer))  # one that was cancelled before it began has closed nothing

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        ends = {writer, server_writer}
        self._writers |= ends
        pumps = [*self._pump(self.requests, reader, server_writer), *self._pump(self.replies, server_reader, writer)]
        try:
            await asyncio.wait(pumps[1::2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for pump in pumps:
                pump.cancel()
            for end in ends:
                _reset(end)

    def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        """Carry bytes one way.  Reading goes on while earlier bytes are held, so that a delay costs no throughput."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        return asyncio.create_task(self._read(way, reader, held)), asyncio.create_task(self._deliver(way, held, writer))

    async def _read(self, way: Way, reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Until the end, which takes as long as all else: in a black hole nobody hears of it."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                held.put_nowait((self._loop.time() + way.latency, data))
        held.put_nowait((self._loop.time() + way.latency, b""))

    async def _deliver(self, way: Way, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        free_at = 0.0
        while True:
            due, data = await held.get()
            if way.rate:
                free_at = max(free_at, due - way.latency) + len(data) / way.rate
                due = free_at + way.latency
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            await way.passing.wait()
            if not data:
                return
            part, resets = way.take(data)
            try:
                writer.write(part)
                await writer.drain()
            except OSError:
                return
            way.carried += len(part)
            if resets:
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
