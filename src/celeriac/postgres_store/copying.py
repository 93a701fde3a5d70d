"""Rows as ``COPY … FROM STDIN (FORMAT binary)`` reads them.

The format is that of PostgreSQL's manual, chapter "COPY", section "Binary Format": a signature, flags and the length of an extension
(both zero); then each row as its number of fields and each field with its length before it; then -1 for the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

SMALLINT = struct.Struct(">h").pack
"""A ``smallint``."""

_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COUNT = struct.Struct(">h").pack
_LENGTH = struct.Struct(">i").pack
_END = _COUNT(-1)

_PIECE = 1 << 20
"""Bytes, about: bounds what libpq copies at once."""


def row_start(fields: Sequence[bytes], of: int) -> bytes:
    """The beginning of rows that have ``of`` fields, of which these come first.  None is NULL."""
    return _COUNT(of) + b"".join(_LENGTH(len(field)) + field for field in fields)


def binary_rows(rows: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Rows, each as a beginning from :func:`row_start` and its last field, in pieces to be sent one after another."""
    pieces: list[bytes] = []
    parts: list[bytes] = [_HEAD]
    size = 0
    for start, last in rows:
        parts += (start, _LENGTH(len(last)), last)
        size += len(last)
        if size > _PIECE:
            pieces.append(b"".join(parts))
            parts, size = [], 0
    pieces.append(b"".join((*parts, _END)))
    return pieces
