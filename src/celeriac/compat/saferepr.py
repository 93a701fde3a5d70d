"""Representations of arguments for logs and monitors."""

from __future__ import annotations

from typing import Any

_SCALARS = frozenset({int, float, bool, type(None)})
LONGEST_TEXT = 60
MOST_ITEMS = 10


def quick_repr(value: tuple[Any, ...] | list[Any] | dict[str, Any]) -> str | None:
    """What Celery's ``saferepr`` says of a few short arguments; ``None`` when that takes more than a look."""
    if len(value) > MOST_ITEMS:
        return None
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        kind = type(item)
        if kind in _SCALARS:
            continue
        if kind is not str or len(item) > LONGEST_TEXT or "'" in item or not item.isprintable():
            return None
    return repr(value)
