"""Arrays as PostgreSQL reads them from the wire: made in one pass, of exactly the type that a statement takes.

The format is that of ``array_recv`` in PostgreSQL's ``arrayfuncs.c``: the number of dimensions, whether there are NULLs, the
type of the elements, the length and the lower bound; then each element with its length before it, or -1 for NULL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from psycopg import pq
from psycopg.adapt import AdaptersMap, Dumper

_HEAD = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


class Array:
    """An array on its way to the server.  Its subclasses are the types of elements."""

    __slots__ = ("data",)
    oid = 0
    """Of the array's type, in PostgreSQL's ``pg_type``."""
    element_oid = 0
    encode: Callable[[Any], bytes]
    """Makes an element's bytes, without the length."""

    def __init__(self, elements: Iterable[Any]) -> None:
        pack, encode = _LENGTH.pack, type(self).encode
        elements = list(elements)
        has_nulls = None in elements
        if has_nulls:
            encoded = [None if element is None else encode(element) for element in elements]
            pieces = [piece for data in encoded for piece in ((_NULL,) if data is None else (pack(len(data)), data))]
        else:
            pieces = [piece for data in map(encode, elements) for piece in (pack(len(data)), data)]
        dimensions = (1, has_nulls, self.element_oid, len(elements), 1)
        self.data = (
            _HEAD.pack(*dimensions) + b"".join(pieces) if elements else _HEAD.pack(0, 0, self.element_oid, 0, 0)[:12]
        )


class Bigints(Array):
    """``bigint[]``"""

    oid, element_oid = 1016, 20
    encode = staticmethod(struct.Struct(">q").pack)


class Integers(Array):
    """``integer[]``"""

    oid, element_oid = 1007, 23
    encode = staticmethod(struct.Struct(">i").pack)


class Smallints(Array):
    """``smallint[]``"""

    oid, element_oid = 1005, 21
    encode = staticmethod(struct.Struct(">h").pack)


class Floats(Array):
    """``float8[]``"""

    oid, element_oid = 1022, 701
    encode = staticmethod(struct.Struct(">d").pack)


class Booleans(Array):
    """``boolean[]``"""

    oid, element_oid = 1000, 16
    encode = staticmethod(struct.Struct(">?").pack)


class Texts(Array):
    """``text[]``"""

    oid, element_oid = 1009, 25
    encode = staticmethod(str.encode)


class Byteas(Array):
    """``bytea[]``"""

    oid, element_oid = 1001, 17
    encode = staticmethod(bytes)


def register(adapters: AdaptersMap) -> None:
    """Teach connections these arrays."""
    for kind in (Bigints, Integers, Smallints, Floats, Booleans, Texts, Byteas):
        adapters.register_dumper(kind, _dumper(kind.oid))


def _dumper(array_oid: int) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = pq.Format.BINARY
        oid = array_oid

        def dump(self, obj: Array) -> bytes:
            return obj.data

    return ArrayDumper
