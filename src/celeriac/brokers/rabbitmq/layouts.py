"""Header tables of the shape of an earlier one are read at one stroke.

Messages of one task have the same headers in the same order with values of the same types, and mostly of the same lengths: ids,
times, small numbers.  A *layout* is that shape.  Names, types and lengths lie between the values; where those bytes are the same
in another table the values lie in the same places, and one ``struct`` takes all of them out.  What is not the same is read
field by field, as is everything that has a shape of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

MOST_LENGTHS = 1024
"""Lengths of tables that are remembered; beyond that all are forgotten."""

MOST_SHAPES = 4
"""Layouts that are remembered for one length."""

STRING = ord("S")
CODES = {ord("I"): "i", ord("l"): "q", ord("d"): "d"}
"""Types whose values ``struct`` reads.  Values of other types belong to the shape."""

Table = dict[str, Any]


class Field(NamedTuple):
    """Where a value lies in the bytes that its table is in."""

    name: str
    kind: int
    start: int
    end: int


class Layout:
    """The shape of a table."""

    __slots__ = ("_copied", "_cut", "_names", "_shape", "_texts", "_values")

    def __init__(self, data: bytes, at: int, end: int, fields: list[Field], table: Table) -> None:
        codes, reached = [], at
        names, texts = [], []
        for name, kind, start, stop in fields:
            if kind == STRING:
                texts.append(name)
            elif kind not in CODES:
                continue
            names.append(name)
            codes += [f"{start - reached}s", CODES.get(kind, f"{stop - start}s")]
            reached = stop
        self._cut = struct.Struct(">" + "".join(codes) + f"{end - reached}s")
        self._shape = self._cut.unpack_from(data, at)[::2]
        self._names, self._texts = tuple(names), tuple(texts)
        self._copied = tuple(name for name, value in table.items() if type(value) in (list, dict))
        self._values = {**table, **{name: table[name].copy() for name in self._copied}}

    def read(self, data: bytes, at: int) -> Table | None:
        """The table that begins there, if it has this shape.  It must be as long."""
        parts = self._cut.unpack_from(data, at)
        if parts[::2] != self._shape:
            return None
        table = self._values.copy()
        table.update(zip(self._names, parts[1::2], strict=True))
        try:
            for name in self._texts:
                table[name] = table[name].decode()
        except UnicodeDecodeError:
            return None
        for name in self._copied:
            table[name] = table[name].copy()
        return table


class Layouts:
    """Those of the tables that this process has read."""

    def __init__(self, read: Callable[[bytes, int, int], tuple[Table, list[Field]]]) -> None:
        """``read``: reads a table field by field."""
        self._read = read
        self._known: dict[int, tuple[Layout, ...]] = {}

    def table(self, data: bytes, at: int, end: int) -> Table:
        """The table between two places.

        Raises:
            ValueError, IndexError, KeyError, struct.error: there is none.
        """
        known = self._known.get(end - at, ())
        for layout in known:
            if (table := layout.read(data, at)) is not None:
                return table
        table, fields = self._read(data, at, end)
        # A name that comes twice has one value, and what is in lists and tables would be shared.
        if len(table) == len(fields) and all(_is_empty(value) for value in table.values()):
            if len(self._known) >= MOST_LENGTHS:
                self._known.clear()
            self._known[end - at] = (Layout(data, at, end, fields, table), *known[: MOST_SHAPES - 1])
        return table


def _is_empty(value: Any) -> bool:
    """Whether a value has nothing in it that could be changed."""
    return type(value) not in (list, dict) or not any(each is not None for each in value)
