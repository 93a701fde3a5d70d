"""Reads the ``.sql`` files: one verb each, with several named statements in them.

A statement begins after a line ``-- name: what_it_does`` and ends where the next one begins.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def read_sql(package: str, filename: str) -> str:
    """The text of a ``.sql`` file that lies in a package."""
    return files(package).joinpath(filename).read_text(encoding="utf-8")


@cache
def statements(package: str, filename: str) -> dict[str, str]:
    """The statements of a ``.sql`` file by name."""
    _, *pieces = _NAME.split(read_sql(package, filename))
    return {name: text.strip() for name, text in zip(pieces[::2], pieces[1::2], strict=True)}
