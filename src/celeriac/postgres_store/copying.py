"""Rows as ``COPY … FROM STDIN (FORMAT binary)`` reads them.

The format is that of PostgreSQL's manual, chapter "COPY", section "Binary Format": a signature, flags and the length of an extension
(both zero); then each row as its number of fields and each field with its length before it; then -1 for the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

SMALLINT = struct.Struct(">h").pack
"""A ``smallint``."""

_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COUNT = struct.Struct(">h").pack
_LENGTH = struct.Struct(">i").pack
_END = _COUNT(-1)

_PIECE = 1 << 20
"""Bytes, about: bounds what libpq copies at once."""


def binary_rows(rows: Iterable[tuple[bytes, ...]]) -> list[bytes]:
    """The rows, none of whose fields is NULL, in pieces to be sent one after another."""
    pieces: list[bytes] = []
    fields: list[bytes] = [_HEAD]
    size = 0
    for row in rows:
        fields.append(_COUNT(len(row)))
        for field in row:
            fields += (_LENGTH(len(field)), field)
            size += len(field)
        if size > _PIECE:
            pieces.append(b"".join(fields))
            fields, size = [], 0
    pieces.append(b"".join((*fields, _END)))
    return pieces
