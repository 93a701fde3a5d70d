"""A message's AMQP properties and header tables, in both directions.

Written by hand because every message passes through here: pamqp takes about four times as long for one.
Types and letters are those that RabbitMQ documents (https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from typing import Any

from celeriac.brokers.rabbitmq.layouts import Field, Layouts

NAMES = (
    ("content_type", 15, "s"),
    ("content_encoding", 14, "s"),
    ("headers", 13, "F"),
    ("delivery_mode", 12, "o"),
    ("priority", 11, "o"),
    ("correlation_id", 10, "s"),
    ("reply_to", 9, "s"),
    ("expiration", 8, "s"),
    ("message_id", 7, "s"),
    ("timestamp", 6, "T"),
    ("type", 5, "s"),
    ("user_id", 4, "s"),
    ("app_id", 3, "s"),
    ("cluster_id", 2, "s"),
)
"""Properties with the bit that announces each, and how it is written."""

_LONG = struct.Struct(">I")
_SIGNED = struct.Struct(">ci")
_LONGLONG = struct.Struct(">Q")
_FLAGS = struct.Struct(">H")
_FIXED: dict[int, tuple[struct.Struct, Callable[[Any], Any]]] = {
    ord("t"): (struct.Struct(">B"), bool),
    ord("b"): (struct.Struct(">b"), int),
    ord("B"): (struct.Struct(">B"), int),
    ord("U"): (struct.Struct(">h"), int),
    ord("s"): (struct.Struct(">h"), int),
    ord("u"): (struct.Struct(">H"), int),
    ord("I"): (struct.Struct(">i"), int),
    ord("i"): (struct.Struct(">I"), int),
    ord("l"): (struct.Struct(">q"), int),
    ord("L"): (struct.Struct(">q"), int),
    ord("f"): (struct.Struct(">f"), float),
    ord("d"): (struct.Struct(">d"), float),
    ord("T"): (struct.Struct(">Q"), lambda at: datetime.fromtimestamp(at, timezone.utc)),
}


# -- reading -----------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> dict[str, Any]:
    """The properties that are there, ``headers`` as a dictionary.

    Raises:
        ValueError: these are no properties.
    """
    try:
        (flags,) = _FLAGS.unpack_from(data)
        at = 2
        found: dict[str, Any] = {}
        for name, kind in _present(flags):
            if kind == "s":
                end = at + 1 + data[at]
                found[name] = data[at + 1 : end].decode()
                at = end
            elif kind == "o":
                found[name] = data[at]
                at += 1
            elif kind == "F":
                end = at + 4 + _LONG.unpack_from(data, at)[0]
                found[name] = _headers.table(data, at + 4, end)
                at = end
            else:
                found[name] = _LONGLONG.unpack_from(data, at)[0]
                at += 8
    except (IndexError, struct.error, KeyError, OverflowError, OSError) as error:
        raise ValueError(f"not the properties of an AMQP message: {error!r}") from error
    else:
        return found


@cache
def _present(flags: int) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name, bit, kind in NAMES if flags >> bit & 1)


def _table(data: bytes, at: int, end: int) -> dict[str, Any]:
    return _fields(data, at, end)[0]


def _fields(data: bytes, at: int, end: int) -> tuple[dict[str, Any], list[Field]]:
    table: dict[str, Any] = {}
    fields: list[Field] = []
    while at < end:
        key_end = at + 1 + data[at]
        name = data[at + 1 : key_end].decode()
        kind = data[key_end]
        start = key_end + 5 if kind in _LONG_ONES else key_end + 1
        table[name], at = _value(kind, data, key_end + 1)
        fields.append(Field(name, kind, start, at))
    return table, fields


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        form, make = fixed
        return make(form.unpack_from(data, at)[0]), at + form.size
    if kind == 86:
        return None, at
    if kind == 68:  # D
        scale, number = struct.unpack_from(">Bi", data, at)
        return Decimal(number).scaleb(-scale), at + 5
    end = at + 4 + _LONG.unpack_from(data, at)[0]
    return _LONG_ONES[kind](data, at + 4, end), end


def _array(data: bytes, at: int, end: int) -> list[Any]:
    values = []
    while at < end:
        value, at = _value(data[at], data, at + 1)
        values.append(value)
    return values


_LONG_ONES: dict[int, Callable[[bytes, int, int], Any]] = {
    ord("S"): lambda data, at, end: _text(data[at:end]),
    ord("x"): lambda data, at, end: data[at:end],
    ord("F"): _table,
    ord("A"): _array,
}

_headers = Layouts(_fields)


# -- writing -----------------------------------------------------------------------------------------------------------


def encode(properties: dict[str, Any]) -> bytes:
    """Properties as they stand in a content header.  ``None`` means that one is not there.

    Raises:
        TypeError: a header of a type that AMQP does not have.
        ValueError: a text that is too long, or a number that is too large.
    """
    flags = 0
    parts = [b""]
    for name, bit, kind in NAMES:
        value = properties.get(name)
        if value is None:
            continue
        flags |= 1 << bit
        if kind == "s":
            parts.append(short(str(value)))
        elif kind == "o":
            parts.append(bytes((value,)))
        elif kind == "F":
            parts.append(table(value))
        else:
            parts.append(_LONGLONG.pack(int(value)))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


def short(text: str) -> bytes:
    """A short string.

    Raises:
        ValueError: it is longer than 255 bytes.
    """
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"AMQP takes at most 255 bytes here: {text[:40]!r}…")
    return bytes((len(raw),)) + raw


def table(values: dict[str, Any]) -> bytes:
    """A header table."""
    parts = []
    for name, value in values.items():
        parts.append(short(name))
        parts.append(_field(value))
    body = b"".join(parts)
    return _LONG.pack(len(body)) + body


def long_text(text: str) -> bytes:
    """A long string as a field of a table, with its type."""
    raw = text.encode()
    return b"S" + _LONG.pack(len(raw)) + raw


def _field(value: Any) -> bytes:
    if value is None:
        return b"V"
    kind = type(value)
    if kind is str:
        return long_text(value)
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if kind is int:
        return _whole(value)
    if kind is float:
        return b"d" + struct.pack(">d", value)
    return _rare(value)


def _whole(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return _SIGNED.pack(b"I", value)
    if -(2**63) <= value < 2**63:
        return b"l" + struct.pack(">q", value)
    raise ValueError(f"{value} is too large for an AMQP header")


def _rare(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"F" + table({str(name): each for name, each in value.items()})
    if isinstance(value, (list, tuple)):
        body = b"".join(_field(each) for each in value)
        return b"A" + _LONG.pack(len(body)) + body
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"x" + _LONG.pack(len(value)) + bytes(value)
    if isinstance(value, datetime):
        return b"T" + _LONGLONG.pack(int(value.timestamp()))
    if isinstance(value, Decimal):
        return long_text(str(value))
    for base in (str, int, float):  # enums and the like
        if isinstance(value, base):
            return _field(base(value))
    raise TypeError(f"AMQP has no header of type {type(value).__name__}: {value!r}")
