"""Plain tables, ages and JSON for a terminal or a pipe."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")

GAP = "  "


class Age(click.ParamType):
    """A length of time such as ``90``, ``90s``, ``10m``, ``2h`` or ``7d``; becomes seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it.  Fails with an example."""
        if isinstance(value, (int, float)):
            return float(value)
        found = _AGE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a length of time; write for example 90s, 10m, 2h or 7d.", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


def describe_age(seconds: float | None) -> str:
    """A length of time in two digits or so: ``45s``, ``12m``, ``3h``, ``9d``; ``-`` for none."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """Text that came in a message, made harmless: a terminal would obey its control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: numbers to the right, the last column cut at the width of a terminal."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    to_the_right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(head))]
    return [_line(row, widths, to_the_right) for row in ([name.upper() for name in head], *cells)]


def _line(row: Sequence[str], widths: Sequence[int], to_the_right: Sequence[bool]) -> str:
    places = zip(row, widths, to_the_right, strict=True)
    line = GAP.join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in places).rstrip()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(line)
    return line if len(line) <= width else line[: width - 1] + "…"


def echo_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    for line in table(head, rows):
        click.echo(line)


def echo_json(value: object, *, on_one_line: bool = False) -> None:
    """Print JSON: indented, or on one line where a program reads many in a row."""
    click.echo(json.dumps(value, indent=None if on_one_line else 2))
