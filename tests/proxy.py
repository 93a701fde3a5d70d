"""A TCP proxy that misbehaves on demand, between a client under test and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
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


class Mode(Enum):
    """What happens to bytes on the way."""

    PASS = "pass"
    BLACK_HOLE = "black hole"
    LOSE_REPLIES = "lose replies"


class FaultProxy:
    """Forwards ``127.0.0.1:port`` to a server on the loopback interface, well or badly.

    Args:
        target_port: the server's port.
        database: for :attr:`url`, the number of a Redis database.
        template: for :attr:`url` of another kind of server, with ``{port}`` in it.

    It runs in a thread of its own.  A command has taken effect when its method returns; commands may come from any
    thread.  Throughput is not limited by :meth:`delay`: bytes are held, not paced.
    """

    def __init__(self, target_port: int, *, database: int = 0, template: str | None = None) -> None:
        self.target = ("127.0.0.1", target_port)
        self.template = template or f"redis://127.0.0.1:{{port}}/{database}"
        self.port = free_port()
        self.accepted = 0
        """Connections accepted so far."""
        self._latency = 0.0
        self._mode = Mode.PASS
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._passing: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._call(self._open())
        return self

    def close(self) -> None:
        """Cut everything and stop listening, for good."""
        self._call(self._shut())
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
        self._call(self._set(latency=seconds))

    def cut(self) -> None:
        """Reset all connections that are open.  New ones are served."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Reset all connections and refuse new ones, as a server that is down does."""
        self._call(self._shut())

    def black_hole(self) -> None:
        """Accept, read, and never answer.  After :meth:`resume` what was held is delivered late."""
        self._call(self._set(mode=Mode.BLACK_HOLE))

    def lose_replies(self) -> None:
        """Let requests reach the server, and reset the connection in place of its answer.

        The client cannot know whether what it asked for was done.
        """
        self._call(self._set(mode=Mode.LOSE_REPLIES))

    def resume(self) -> None:
        """Be well again.  The delay stays."""
        self._call(self._resume())

    # -- inside: all of this runs on the proxy's own loop ----------------------------------------------------------

    def _call(self, command: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(CALL_TIMEOUT)

    async def _open(self) -> None:
        self._passing = self._passing or asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _set(self, *, latency: float | None = None, mode: Mode | None = None) -> None:
        assert self._passing is not None
        if latency is not None:
            self._latency = latency
        if mode is not None:
            self._mode = mode
            (self._passing.clear if mode is Mode.BLACK_HOLE else self._passing.set)()

    async def _resume(self) -> None:
        await self._set(mode=Mode.PASS)
        if self._server is None:
            await self._open()

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
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
        directions = (
            asyncio.create_task(self._pump(reader, server_writer, replies=False)),
            asyncio.create_task(self._pump(server_reader, writer, replies=True)),
        )
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for direction in directions:
                direction.cancel()
            for end in ends:
                _reset(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        """Carry bytes one way.  Reading goes on while earlier bytes are held, so that a delay costs no throughput."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        deliver = asyncio.create_task(self._deliver(held, writer, replies=replies))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    held.put_nowait((self._loop.time() + self._latency, data))
                held.put_nowait((self._loop.time() + self._latency, b""))
                await deliver
        finally:
            deliver.cancel()

    async def _deliver(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        assert self._passing is not None
        while True:
            due, data = await held.get()
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            await self._passing.wait()
            if not data:
                return
            if replies and self._mode is Mode.LOSE_REPLIES:
                _reset(writer)
                return
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
