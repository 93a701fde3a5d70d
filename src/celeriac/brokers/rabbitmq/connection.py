"""One AMQP connection with one channel, used synchronously and by one thread at a time.

pamqp encodes and decodes what is rare; the frames of the hot path are made in :mod:`celeriac.brokers.rabbitmq.wire`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pamqp import commands, frame
from pamqp.base import Frame

from celeriac.brokers.rabbitmq import deliveries, wire
from celeriac.brokers.rabbitmq.closed import Blocked, ChannelClosed
from celeriac.brokers.rabbitmq.confirms import Ahead, Confirms, Published
from celeriac.brokers.rabbitmq.deliveries import Listener
from celeriac.brokers.rabbitmq.handshake import start_ok
from celeriac.brokers.rabbitmq.methods import answers_to, decode_method
from celeriac.brokers.rabbitmq.options import Address, RabbitOptions
from celeriac.brokers.rabbitmq.refusals import check_version, login_refused, tls_refused, vhost_refused
from celeriac.brokers.rabbitmq.wire import Entry
from celeriac.errors import AccessDenied, StoreError, StoreUnavailable

WORK = 1
"""The one channel.  An error closes it; it is opened again with the next call."""

FRAME_MAX = 131_072
CHUNK = 1 << 18
WINDOW = 2000
"""Messages published before their confirms are waited for."""


class Connection:
    """Connects when it is first used, and anew when the connection was lost."""

    def __init__(self, options: RabbitOptions, purpose: str) -> None:
        """``purpose``: shown in RabbitMQ's management."""
        self.options = options
        self.lock = threading.RLock()
        """Held for the length of a call."""
        self.epoch = 0
        """Grows with every channel that was opened: leases of an earlier one are void."""
        self.connected_at = 0.0
        """Monotonic clock."""
        self.blocked: str | None = None
        """Why the server takes no messages now, if it does not."""
        self.beats = False
        """Whether the server is to notice when this process falls silent; somebody has to call :meth:`tend` then."""
        self.pinned = False
        """Whether what is being done is void with another connection, so that none is to be made."""
        self.reconnected = False
        """Whether an earlier connection was lost."""
        self.round_trips = 0
        self.server_version: tuple[int, ...] = ()
        self.listener: Listener | None = None
        self._purpose = purpose
        self._sock: socket.socket | None = None
        self._reader = wire.FrameReader()
        self._channel_open = False
        self._confirms = Confirms()
        self._frame_max = FRAME_MAX
        self._heartbeat = 0.0
        self._read_at = self._written_at = 0.0
        self._first = 0
        self._closed = False

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._sock is not None

    def ensure(self) -> None:
        """Connect and open the channel, if that is needed.

        Raises:
            StoreUnavailable: no server could be reached.
            ConfigurationError: the server does not let us in.
        """
        with self.lock:
            if self._sock is not None:
                self._take_pending()
            if self.pinned and (self._sock is None or not self._channel_open):
                raise self._lost("the connection was lost")
            if self._sock is None:
                self._connect()
            if not self._channel_open:
                self._open_channel()

    def close(self) -> None:
        """Say farewell, as far as that is possible."""
        with self.lock:
            if self._sock is not None:
                with contextlib.suppress(StoreError, OSError):
                    self._send(frame.marshal(commands.Connection.Close(200, "", 0, 0), 0))
                    self._await(0, (commands.Connection.CloseOk,), time.monotonic() + 1.0)
            self._closed = True
            self._drop()

    def abandon(self) -> None:
        """End the connection without waiting for the server's farewell."""
        with self.lock:
            if self._sock is not None:
                with contextlib.suppress(StoreError):
                    self._send(frame.marshal(commands.Connection.Close(200, "", 0, 0), 0))
            self._closed = True
            self.pinned = False
            self._drop()

    def renew(self) -> None:
        """Have the next call open another channel.  One that was opened while a quorum queue's leader was lost may refuse for good
        what is published to that queue: it goes on asking the node that is gone.
        """
        with self.lock, contextlib.suppress(StoreUnavailable):
            if self._sock is not None and self._channel_open:
                self._channel_open = False
                self._send(frame.marshal(commands.Channel.Close(200, "", 0, 0), WORK))
                self._await(WORK, (commands.Channel.CloseOk,))

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        self._channel_open = False
        self._reader = wire.FrameReader()
        self.blocked = None
        if sock is not None:
            sock.close()
            if self.listener is not None:
                self.listener.lost()

    def _lost(self, why: object) -> StoreUnavailable:
        self._drop()
        return StoreUnavailable(f"RabbitMQ at {self.options.url} cannot be reached: {why}")

    def _connect(self) -> None:
        addresses = self.options.addresses
        problems = []
        for number in range(len(addresses)):
            at = (self._first + number) % len(addresses)
            try:
                self._connect_to(addresses[at])
            except AccessDenied:
                self._drop()
                raise  # another address of the cluster would say the same
            except (OSError, StoreUnavailable) as error:
                self._drop()
                problems.append(f"{addresses[at]}: {self._problem(error)}")
                continue
            except BaseException:
                self._drop()
                raise
            self._first = at
            return
        raise StoreUnavailable(f"RabbitMQ at {self.options.url} cannot be reached: {'; '.join(problems)}")

    def _problem(self, error: Exception) -> str:
        """Why an address did not do, without what the text around it says anyway."""
        text = _reason(error).rpartition("cannot be reached: ")[2]
        ended = "EOF" in text or "closed the connection" in text or "reset" in text
        hint = ". Does it want a client's certificate (certfile and keyfile of broker_use_ssl)?"
        return text + (hint if ended and self.options.tls is not None else "")

    def _connect_to(self, address: Address) -> None:
        options = self.options
        sock = socket.create_connection((address.host, address.port), options.connect_timeout)
        self._sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if options.tls is not None:
            try:
                self._sock = options.tls.wrap_socket(sock, server_hostname=options.server_hostname or address.host)
            except ssl.SSLError as error:
                sock.close()
                raise tls_refused(error, address) from error
        self._shake_hands(address)
        self.reconnected = self.epoch > 0 and not self._closed
        self._closed = False
        self.connected_at = time.monotonic()
        self.epoch += 1

    def _shake_hands(self, address: Address) -> None:
        deadline = time.monotonic() + self.options.answer_timeout
        self._send(b"AMQP\x00\x00\x09\x01")
        start = self._await(0, (commands.Connection.Start,), deadline)
        known = start.server_properties
        self.server_version = check_version(known.get("product"), str(known.get("version", "")), address)
        self._send(frame.marshal(start_ok(self.options, start.mechanisms, self._purpose), 0))
        try:
            tune = self._await(0, (commands.Connection.Tune,), deadline)
        except ChannelClosed as error:
            raise login_refused(self.options, error.text) from error
        self._frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self._heartbeat = self.options.heartbeat if self.beats else 0.0
        self._send(
            frame.marshal(commands.Connection.TuneOk(tune.channel_max, self._frame_max, int(self._heartbeat)), 0)
            + frame.marshal(commands.Connection.Open(self.options.vhost), 0)
        )
        try:
            self._await(0, (commands.Connection.OpenOk,), deadline)
        except ChannelClosed as error:
            raise vhost_refused(self.options, error.text) from error

    def _open_channel(self) -> None:
        self._confirms = Confirms()
        self._send(frame.marshal(commands.Channel.Open(), WORK))
        self._await(WORK, (commands.Channel.OpenOk,))
        self._channel_open = True
        self.epoch += 1
        self._send(frame.marshal(commands.Confirm.Select(), WORK))
        self._await(WORK, (commands.Confirm.SelectOk,))
        self.round_trips += 1

    # -- heartbeats ------------------------------------------------------------------------------------------------

    def tend(self) -> bool:
        """Keep the connection alive while its owner is busy with other things; return whether there is one.

        Does nothing while a call is under way: that keeps it alive itself.
        """
        if self.lock.acquire(blocking=False):
            try:
                if self._sock is not None:
                    self._beat_once(time.monotonic())
            except StoreError:
                pass  # it is lost
            finally:
                self.lock.release()
        return self._sock is not None

    def _beat_once(self, now: float) -> None:
        self._take_pending()
        if self._sock is None:
            return
        if not self._heartbeat:
            return
        if now - self._read_at > 2 * self._heartbeat:
            raise self._lost(f"nothing was heard for {now - self._read_at:.0f} s")
        if now - self._written_at > self._heartbeat / 3:
            self._send(wire.HEARTBEAT_FRAME)

    def _take_pending(self) -> None:
        """Read what has arrived without being asked for: heartbeats, notices, or the end of the connection."""
        while self._sock is not None:
            pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
            if not pending and not select.select([self._sock], [], [], 0)[0]:
                break
            try:
                self._feed(self._sock.recv(CHUNK))
            except (OSError, StoreUnavailable):
                self._drop()
                return
        try:
            while (got := self._frame()) is not None:
                self._dispatch(*got)
        except ChannelClosed:
            pass  # the call that it answers has given up on it
        except StoreUnavailable:
            self._drop()

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        sock = self._sock
        if sock is None:
            raise self._lost("the connection was lost")
        try:
            sock.settimeout(self.options.answer_timeout)
            sock.sendall(data)
        except TimeoutError as error:
            # Part of a frame may be out, so the connection is of no use any more.
            why = self._blocked_text() or f"it took no data for {self.options.answer_timeout:g} s"
            raise self._lost(why) from error
        except OSError as error:
            raise self._lost(_reason(error)) from error
        self._written_at = time.monotonic()

    def _tls_lost(self, error: ssl.SSLError) -> StoreUnavailable:
        """With TLS 1.3 a server says only now that it wants another certificate."""
        self._drop()
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return self._lost(_reason(error))
        return tls_refused(error, self.options.addresses[self._first])

    def _feed(self, data: bytes) -> None:
        if not data:
            raise self._lost("the server closed the connection")
        self._read_at = time.monotonic()
        self._reader.feed(data)

    def _next(self, deadline: float) -> tuple[int, int, bytes]:
        """The next frame that is not the connection's own business.

        Raises:
            StoreUnavailable: the connection was lost, or there was no answer in time.
            ChannelClosed: the server closed the channel.
        """
        while True:
            got = self._frame()
            if got is not None:
                if not self._dispatch(*got):
                    return got
            else:
                self._receive(deadline)

    def _frame(self) -> tuple[int, int, bytes] | None:
        """The next frame that has come, after what was pushed before it."""
        if self.listener is not None:
            found, at = deliveries.cut(*self._reader.rest(), self.listener.queue_of)
            if found:
                self._reader.skip(at)
                self.listener.pushed(found)
        return self._reader.next()

    def _receive(self, deadline: float) -> None:
        sock = self._sock
        if sock is None:
            raise self._lost("the connection was lost")
        left = deadline - time.monotonic()
        if left <= 0:
            why = self._blocked_text() or f"no answer within {self.options.answer_timeout:g} s"
            raise self._lost(why)
        try:
            sock.settimeout(left)
            data = sock.recv(CHUNK)
        except TimeoutError:
            return
        except ssl.SSLError as error:
            raise self._tls_lost(error) from error
        except OSError as error:
            raise self._lost(_reason(error)) from error
        self._feed(data)

    def _blocked_text(self) -> str:
        return f"it takes no messages for now: {self.blocked}" if self.blocked is not None else ""

    # -- frames that come unasked ----------------------------------------------------------------------------------

    def _dispatch(self, kind: int, channel: int, payload: bytes) -> bool:
        """Deal with a frame that nobody waits for; return False if somebody may wait for it."""
        if kind == wire.HEARTBEAT:
            return True
        if kind != wire.METHOD:
            return False
        cls, method = struct.unpack_from(">HH", payload)
        if cls == wire.BASIC:
            return self._on_basic(method, payload)
        if channel == 0 and cls == 10:
            return self._on_connection(method, payload)
        if cls == 20 and method == 40:
            self._on_channel_close(channel, payload)
        return False

    def _on_basic(self, method: int, payload: bytes) -> bool:
        if method in (wire.ACK, wire.NACK):
            tag, multiple = struct.unpack_from(">QB", payload, 4)
            self._confirms.told(tag, multiple=bool(multiple & 1), taken=method == wire.ACK)
        elif method == wire.RETURN:
            self._on_return(payload)
        elif method == wire.DELIVER:
            self._on_delivery(payload)
        elif method == wire.CANCEL:
            if self.listener is not None:
                self.listener.cancelled(payload[5 : 5 + payload[4]])
        else:
            return False
        return True

    def _on_connection(self, method: int, payload: bytes) -> bool:
        if method == 60:
            self.blocked = payload[5:].decode(errors="replace") or "memory or disk alarm"
        elif method == 61:
            self.blocked = None
        elif method == 50:
            closed = decode_method(0, payload)
            with contextlib.suppress(StoreError):
                self._send(frame.marshal(commands.Connection.CloseOk(), 0))
            self._drop()
            if closed.reply_code in (403, 530):
                raise ChannelClosed(closed.reply_code, closed.reply_text)
            raise StoreUnavailable(
                f"RabbitMQ at {self.options.url} closed the connection: {closed.reply_text} ({closed.reply_code})"
            )
        else:
            return False
        return True

    def _on_delivery(self, payload: bytes) -> None:
        """One that could not be cut with the others: it is large."""
        content = self._content(time.monotonic() + self.options.answer_timeout)
        if self.listener is not None:
            self.listener.pushed([deliveries.assemble(payload, *content, self.listener.queue_of)])

    def _on_channel_close(self, channel: int, payload: bytes) -> None:
        closed = decode_method(channel, payload)
        self._channel_open = False
        if self.listener is not None:
            self.listener.lost()
        self._send(frame.marshal(commands.Channel.CloseOk(), channel))
        raise ChannelClosed(closed.reply_code, closed.reply_text)

    def _on_return(self, payload: bytes) -> None:
        returned = decode_method(WORK, payload)
        self._confirms.came_back(returned.exchange, returned.routing_key)
        self._content(time.monotonic() + self.options.answer_timeout)

    def _content(self, deadline: float) -> tuple[bytes, bytes]:
        """The properties and the body that follow a method."""
        kind, _, payload = self._next(deadline)
        if kind != wire.HEADER:
            raise self._lost("the server broke the protocol")
        (size,) = struct.unpack_from(">Q", payload, 4)
        properties, parts, have = payload[12:], [], 0
        while have < size:
            kind, _, part = self._next(deadline)
            parts.append(part)
            have += len(part)
        return properties, parts[0] if len(parts) == 1 else b"".join(parts)

    # -- calls -----------------------------------------------------------------------------------------------------

    def _await(self, channel: int, wanted: tuple[type[Frame], ...], deadline: float | None = None) -> Any:
        deadline = deadline or time.monotonic() + self.options.answer_timeout
        while True:
            kind, got_channel, payload = self._next(deadline)
            if kind != wire.METHOD or got_channel != channel:
                continue
            method = decode_method(channel, payload)
            if isinstance(method, wanted):
                return method

    def call(self, *methods: Frame) -> list[Any]:
        """Call methods of the channel, all in one round trip; return the answers.

        Raises:
            ChannelClosed: the server refused one of them.
            StoreUnavailable: see :class:`~celeriac.errors.StoreUnavailable`.
        """
        with self.lock:
            self.ensure()
            self.round_trips += 1
            self._send(b"".join(frame.marshal(method, WORK) for method in methods))
            return [self._await(WORK, answers_to(method)) for method in methods]

    def get(self, queue: bytes, limit: int) -> list[wire.Gotten]:
        """Take up to ``limit`` messages, to be acknowledged later."""
        with self.lock:
            self.ensure()
            taken: list[wire.Gotten] = []
            ask = min(limit, 1)
            while ask:
                got = self._get(queue, ask)
                taken += got
                left = got[-1].left if len(got) == ask else 0
                ask = min(limit - len(taken), left)
            return taken

    def _get(self, queue: bytes, count: int) -> list[wire.Gotten]:
        self.round_trips += 1
        self._send(wire.get_frame(WORK, queue) * count)
        deadline = time.monotonic() + self.options.answer_timeout
        taken = []
        for _ in range(count):
            payload = self._next(deadline)[2]
            _, method = struct.unpack_from(">HH", payload)
            if method == wire.GET_EMPTY:
                continue
            taken.append(wire.gotten(payload, queue, *self._content(deadline)))
        return taken

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames that have no answer (acknowledgements)."""
        with self.lock:
            self._send(b"".join(frames))

    def post(self, method: Frame) -> None:
        """Call a method of the channel that has no answer."""
        with self.lock:
            self._send(frame.marshal(method, WORK))

    def fileno(self) -> int:
        """Becomes readable when the server has sent something.  Of an open connection."""
        assert self._sock is not None
        return self._sock.fileno()

    def still(self, epoch: int) -> bool:
        """Whether this is the same channel as at that time, as far as is known now."""
        with self.lock:
            self._take_pending()
            return self.epoch == epoch and self._sock is not None and self._channel_open

    def publish(self, entries: Sequence[Entry]) -> Published:
        """Publish messages and wait until the server has confirmed or refused each of them.

        Raises:
            StoreUnavailable: what was not confirmed may have been published or not.
        """
        with self.lock:
            self._ensure_unblocked()
            self.round_trips += 1
            first = self._confirms.upcoming
            for at in range(0, len(entries), WINDOW):
                self._write(entries[at : at + WINDOW])
                self._wait_confirmed()
            return self._confirms.end(first, entries)

    def publish_ahead(self, entry: Entry) -> Ahead:
        """Publish a message without waiting; return what :meth:`confirmed` asks for.

        Raises:
            StoreUnavailable: it may have been published or not.
        """
        with self.lock:
            self._ensure_unblocked()
            first = self._confirms.upcoming
            self._write([entry])
            return Ahead(entry, self.epoch, first)

    def confirmed(self, ahead: Ahead) -> Published:
        """Wait until the server has confirmed or refused what was published ahead.

        Raises:
            StoreUnavailable: the connection was lost since then; it may have been published or not.
        """
        with self.lock:
            if self.epoch != ahead.epoch:
                raise StoreUnavailable(f"the connection to RabbitMQ at {self.options.url} was lost and made again")
            self.round_trips += 1
            self._wait_confirmed()
            return self._confirms.end(ahead.number, [ahead.entry])

    def _ensure_unblocked(self) -> None:
        self.ensure()
        deadline = time.monotonic() + self.options.answer_timeout
        while self.blocked is not None:
            if time.monotonic() >= deadline:
                raise Blocked(f"RabbitMQ at {self.options.url} takes no messages for now: {self.blocked}")
            assert self._sock is not None
            select.select([self._sock], [], [], 0.5)
            self.ensure()

    def _write(self, entries: Sequence[Entry]) -> None:
        frames: list[bytes] = []
        for entry in entries:
            frames += wire.publish_frames(WORK, entry, self._frame_max)
        self._confirms.sent(len(entries))
        self._send(b"".join(frames))

    def _wait_confirmed(self) -> None:
        deadline = time.monotonic() + self.options.answer_timeout
        while self._confirms.pending:
            self._next_or_more(deadline)

    def _next_or_more(self, deadline: float) -> None:
        got = self._frame()
        if got is None:
            self._receive(deadline)
        else:
            self._dispatch(*got)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
