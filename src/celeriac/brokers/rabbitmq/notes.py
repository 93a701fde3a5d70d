"""What an owner holds, written down in the broker: a *note* for each owner, replaced with every turn.

RabbitMQ gives the unacknowledged messages of a lost connection to others at once, whether their bodies have started or not.
The note is there before a body starts, so whoever gets such a message can see whose it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from celeriac.brokers.rabbitmq import properties, wire
from celeriac.message import Delivery

_HEAD = struct.Struct(">qHI")
DIGEST = 16

COUNTED_BY_SERVER = frozenset({"x-delivery-count", "x-acquired-count"})
"""Headers that quorum queues add to a message that comes again."""

_COUNT_MARK = b"\x10x-delivery-count"


def encode(deliveries: Iterable[Delivery]) -> bytes:
    """A note."""
    parts: list[bytes] = []
    for tag, queue, raw in deliveries:
        name = queue.encode()
        parts += (_HEAD.pack(tag, len(name), len(raw)), name, raw)
    return b"".join(parts)


def decode_note(body: bytes) -> list[Delivery]:
    """What a note lists."""
    found, at = [], 0
    while at < len(body):
        tag, name_length, raw_length = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        name, at = body[at : at + name_length].decode(), at + name_length
        found.append(Delivery(tag, name, body[at : at + raw_length]))
        at += raw_length
    return found


def identities(raw: bytes) -> tuple[bytes, ...]:
    """Digests that tell a message from all others; those of the same message have one in common whenever it is delivered."""
    return quick_identity(raw), full_identity(raw)


def quick_identity(raw: bytes) -> bytes:
    """Of the bytes as they are: the same each time that a classic queue delivers a message."""
    return blake2b(raw[2:] if wire.is_parcel(raw) else raw, digest_size=DIGEST).digest()


def is_counted(raw: bytes) -> bool:
    """Whether a quorum queue has added to the message that it comes again."""
    return _COUNT_MARK in raw


def full_identity(raw: bytes) -> bytes:
    """Of what the bytes say, without what quorum queues add, and whatever the order of headers."""
    digest = blake2b(digest_size=DIGEST)
    if wire.is_parcel(raw):
        try:
            parcel = wire.unpack(raw)
            digest.update(_stable(properties.decode(parcel.properties)))
            raw = parcel.body
        except ValueError:  # only its sender understands it
            raw = raw[2:]
    digest.update(raw)
    return digest.digest()


def _stable(found: dict[str, Any]) -> bytes:
    headers = found.pop("headers", {})
    known = sorted((name, repr(value)) for name, value in headers.items() if name not in COUNTED_BY_SERVER)
    return repr((known, sorted(found.items()))).encode()
