"""Reads the ``.sql`` files: one verb each, with several named statements in them.

A statement begins after a line ``-- name: what_it_does`` and ends where the next one begins.  ``{schema}`` in it stands for
the schema's name, which needs no quotes (see :mod:`celeriac.postgres_store.options`).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(package: str, filename: str, schema: str) -> dict[str, bytes]:
    """The statements of a ``.sql`` file that lies in a package, by name."""
    _, *pieces = _NAME.split(files(package).joinpath(filename).read_text(encoding="utf-8"))
    return {
        name: text.strip().replace("{schema}", schema).encode()
        for name, text in zip(pieces[::2], pieces[1::2], strict=True)
    }
