"""Durations as Celery's configuration writes them."""

from __future__ import annotations

from typing import Any


def seconds(value: Any) -> float | None:
    """A duration of Celery's configuration (a number or a ``timedelta``) in seconds; ``None`` means for ever."""
    if value is None:
        return None
    return float(value.total_seconds()) if hasattr(value, "total_seconds") else float(value)


def whole_seconds(value: Any) -> int:
    """The same in whole seconds; 0 means for ever."""
    return int(seconds(value) or 0)
