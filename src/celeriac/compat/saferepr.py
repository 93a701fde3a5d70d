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
    if type(value) is dict:
        return repr(value) if all(_short(item) for item in value.values()) else None
    if type(value) is tuple or type(value) is list:
        return repr(value) if all(_short(item) for item in value) else None
    return None


def _short(item: Any) -> bool:
    kind = type(item)
    return kind in _SCALARS or (kind is str and len(item) <= LONGEST_TEXT and item.isprintable() and "'" not in item)
