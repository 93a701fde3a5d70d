r"""AMQP 0-9-1 frames of the hot path, written and read by hand; all other methods go through pamqp.

A message travels through the engine as one value of bytes, a *parcel*: what AMQP says about it, and its body, byte for byte
as they lay on the wire::

    magic      b"\xa1"
    flags      uint8      1: the server says that it was delivered before
    exchange   shortstr   that it was published to
    key        shortstr   its routing key
    length     uint32     of the properties
    properties property flags and list, as in a content header frame
    body       the rest

Bytes that do not begin like a parcel (nothing that Celery sends) travel as a body of type :data:`PLAIN_TYPE`.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from celeriac.brokers.rabbitmq import properties
from celeriac.errors import ConfigurationError
from celeriac.message import COPY_HEADER, DELAY_HEADERS

MAGIC = 0xA1
REDELIVERED = 1

PLAIN_TYPE = "celeriac.bytes"
"""The AMQP ``type`` of messages whose bytes are no parcel."""

PLAIN_MARK = b"\x0e" + PLAIN_TYPE.encode()
"""How the properties of such a message end."""

FROM_DELAY = b"\x0cceleriac.due"
"""How the route of a message begins that was delayed."""

METHOD, HEADER, BODY, HEARTBEAT, END = 1, 2, 3, 8, 0xCE
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_FRAME = struct.Struct(">BHI")
_LONG = struct.Struct(">I")
_CONTENT = struct.Struct(">BHIHHQ")
_ACK = struct.Struct(">BHIHHQBB")
_NACK = struct.Struct(">BHIHHQBB")

BASIC = 60
PUBLISH, RETURN, GET, GET_OK, GET_EMPTY, ACK, NACK = 40, 50, 70, 71, 72, 80, 120
CANCEL, DELIVER = 30, 60

PLAIN_PROPERTIES = properties.encode({"delivery_mode": 2, "type": PLAIN_TYPE})


class Parcel(NamedTuple):
    """A message, taken apart."""

    redelivered: bool
    exchange: str
    routing_key: str
    properties: bytes
    body: bytes


def pack(exchange: bytes, key: bytes, properties: bytes, body: bytes, *, redelivered: bool = False) -> bytes:
    """A parcel."""
    return _packed(redelivered, _route(exchange, key), properties, body)


def _route(exchange: bytes, key: bytes) -> bytes:
    return b"".join((bytes((len(exchange),)), exchange, bytes((len(key),)), key))


def _packed(redelivered: int, route: bytes, properties: bytes, body: bytes) -> bytes:
    return b"".join((bytes((MAGIC, redelivered)), route, _LONG.pack(len(properties)), properties, body))


def is_parcel(raw: bytes) -> bool:
    """Whether bytes look like a parcel."""
    return raw[:1] == b"\xa1"


def unpack(raw: bytes) -> Parcel:
    """Take a parcel apart.

    Raises:
        ValueError: it is none.
    """
    try:
        if raw[0] != MAGIC:
            raise ValueError("not an AMQP parcel")
        at = 3 + raw[2]
        exchange = raw[3:at].decode()
        key_end = at + 1 + raw[at]
        key = raw[at + 1 : key_end].decode()
        (length,) = _LONG.unpack_from(raw, key_end)
        start = key_end + 4
        if len(raw) < start + length:
            raise ValueError("an AMQP parcel that was cut short")
        return Parcel(bool(raw[1] & REDELIVERED), exchange, key, raw[start : start + length], raw[start + length :])
    except (IndexError, struct.error) as error:
        raise ValueError("an AMQP parcel that was cut short") from error


def content(raw: bytes, priority: int = 0) -> tuple[bytes, bytes]:
    """The properties and the body with which bytes go over the wire.  A parcel's properties have their own priority."""
    if is_parcel(raw):
        try:
            parcel = unpack(raw)
        except ValueError:
            pass
        else:
            return parcel.properties, parcel.body
    return (_plain_properties(priority) if priority else PLAIN_PROPERTIES), raw


def _plain_properties(priority: int) -> bytes:
    return properties.encode({"delivery_mode": 2, "type": PLAIN_TYPE, "priority": priority})


DEATH_MARK = b"x-death"


def without_deaths(found: bytes) -> bytes:
    """Properties without the trace of an earlier delay, which the server would take for a cycle: it drops, without a word to
    anybody, a message that expires a second time on its way into the same queue.
    """
    if DEATH_MARK not in found:
        return found
    known = properties.decode(found)
    headers = known.get("headers", {})
    known["headers"] = {name: value for name, value in headers.items() if name not in DELAY_HEADERS}
    return properties.encode(known)


def same_message(one: bytes, other: bytes) -> bool:
    """Whether two parcels are the same message, delivered again or not."""
    return one == other or (is_parcel(one) and is_parcel(other) and one[2:] == other[2:])


def as_copy(raw: bytes) -> bytes:
    """The same message, told apart from the one that it was made from, which may be remembered as settled."""
    if not is_parcel(raw):
        return raw
    try:
        parcel = unpack(raw)
        found = properties.decode(parcel.properties)
    except ValueError:
        return raw
    found["headers"] = {**found.get("headers", {}), COPY_HEADER: os.urandom(8).hex()}
    return pack(parcel.exchange.encode(), parcel.routing_key.encode(), properties.encode(found), parcel.body)


class Entry(NamedTuple):
    """A message to publish."""

    exchange: bytes
    key: bytes
    properties: bytes
    body: bytes
    mandatory: bool = True


def publish_frames(channel: int, entry: Entry, frame_max: int) -> list[bytes]:
    """The frames of one ``basic.publish``.

    Raises:
        ValueError: a name is longer than AMQP's 255 bytes.
    """
    exchange, key, properties, body, mandatory = entry
    if len(exchange) > 255 or len(key) > 255:
        raise ValueError(f"AMQP takes names of at most 255 bytes: {(key if len(key) > 255 else exchange)!r}")
    method = b"".join(
        (b"\x00<\x00(\x00\x00", bytes((len(exchange),)), exchange, bytes((len(key),)), key, bytes((mandatory,)))
    )
    frames = [
        _FRAME.pack(METHOD, channel, len(method)), method, b"\xce",
        _CONTENT.pack(HEADER, channel, 12 + len(properties), BASIC, 0, len(body)), properties, b"\xce",
    ]  # fmt: skip
    most = frame_max - 8
    if len(body) <= most:
        if body:
            frames += (_FRAME.pack(BODY, channel, len(body)), body, b"\xce")
        return frames
    for at in range(0, len(body), most):
        part = body[at : at + most]
        frames += (_FRAME.pack(BODY, channel, len(part)), part, b"\xce")
    return frames


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """``basic.ack``."""
    return _ACK.pack(METHOD, channel, 13, BASIC, ACK, tag, multiple, END)


def requeue_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """``basic.nack`` with requeue."""
    return _NACK.pack(METHOD, channel, 13, BASIC, NACK, tag, multiple | 2, END)


def get_frame(channel: int, queue: bytes) -> bytes:
    """``basic.get`` that has to be acknowledged."""
    payload = b"".join((b"\x00<\x00F\x00\x00", bytes((len(queue),)), queue, b"\x00"))
    return b"".join((_FRAME.pack(METHOD, channel, len(payload)), payload, b"\xce"))


class Gotten(NamedTuple):
    """One message that was taken."""

    tag: int
    """Of its delivery, in its channel."""
    redelivered: bool
    left: int
    """Messages that were still in the queue."""
    raw: bytes
    route: bytes = b""
    """Exchange and routing key as they stand there, of what ``basic.get`` brought."""


def gotten(payload: bytes, queue: bytes, properties: bytes, body: bytes) -> Gotten:
    """A message from its ``basic.get-ok``, its properties and its body."""
    tag, redelivered = struct.unpack_from(">QB", payload, 4)
    at = 13
    at += 1 + payload[at]
    at += 1 + payload[at]
    (left,) = _LONG.unpack_from(payload, at)
    route = payload[13:at]
    return Gotten(tag, bool(redelivered), left, parcel(redelivered, route, queue, properties, body), route)


def routing_key(route: bytes) -> str:
    """The second of the two short strings of a route."""
    return route[route[0] + 2 :].decode()


def parcel(redelivered: int, route: bytes, queue: bytes, properties: bytes, body: bytes) -> bytes:
    """Bytes for the engine from what came over the wire.  ``route``: exchange and routing key as they stand there."""
    if properties.endswith(PLAIN_MARK):
        return body
    if route.startswith(FROM_DELAY):
        route = _route(b"", queue)
    return _packed(redelivered, route, properties, body)


NOT_AMQP = "What the server sends is not AMQP 0-9-1; is it the port of another protocol?"


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0

    def rest(self) -> tuple[bytes, int]:
        """What has not been cut yet: the bytes, and where it begins in them."""
        return self._buffer, self._at

    def skip(self, at: int) -> None:
        """What comes before this place was cut by somebody else."""
        self._at = at

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def next(self) -> tuple[int, int, bytes] | None:
        """The next whole frame: kind, channel and payload.

        Raises:
            ConfigurationError: the bytes are no AMQP.
        """
        at, buffer = self._at, self._buffer
        if len(buffer) < at + 8:
            return None
        kind, channel, size = _FRAME.unpack_from(buffer, at)
        end = at + 7 + size
        if kind > HEARTBEAT:
            raise ConfigurationError(NOT_AMQP)
        if len(buffer) <= end:
            return None
        if buffer[end] != END:
            raise ConfigurationError(NOT_AMQP)
        self._at = end + 1
        return kind, channel, buffer[at + 7 : end]
