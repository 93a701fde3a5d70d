"""A dead letter with what its message says, as far as it can be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kombu.serialization import prepare_accept_content

from celeriac.broker import DeadMessage
from celeriac.compat.envelope import decode, decode_body
from celeriac.message import sent_at

UNREADABLE = (Exception, RecursionError)
"""Whatever a decoder raises for bytes that anybody may have sent."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.  Times are in seconds since the epoch."""

    kept: DeadMessage
    accept: frozenset[str]
    """Content types that the app accepts: others are not decoded."""

    def __getattr__(self, name: str) -> Any:
        """Everything that is kept: ``id``, ``task``, ``task_id``, ``queue``, ``reason``, ``error``, ``traceback``, ``attempts``,
        ``crashes``, ``worker``, ``at`` (when it died) and ``raw``.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.kept, name)

    @property
    def sent(self) -> float | None:
        """When it was sent, the last time; ``None`` where the message does not tell."""
        return sent_at(self.kept.raw)

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]] | None:
        """The positional and the named arguments as they were sent; ``None`` where they cannot be read."""
        return arguments_of(self.kept.raw, self.accept)

    @property
    def args(self) -> list[Any] | None:
        """The positional arguments; ``None`` where they cannot be read."""
        found = self.arguments
        return found[0] if found else None

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """The named arguments; ``None`` where they cannot be read."""
        found = self.arguments
        return found[1] if found else None

    def argument(self, path: str, names: tuple[str, ...] = ()) -> Any:
        """The value at ``order.lines.0.sku``: an argument's name or number, then the way into it.

        Args:
            path: the way.
            names: of the task's parameters, in order, where they are known.

        Raises:
            LookupError: there is nothing.
        """
        found = self.arguments
        if found is None:
            raise LookupError(path)
        args, kwargs = found
        first, *rest = path.split(".")
        value = kwargs[first] if first in kwargs else args[int(first) if first.isdigit() else _place(first, names)]
        for step in rest:
            value = (
                value[step] if isinstance(value, dict) else _items(value)[int(step) if step.isdigit() else len(value)]
            )
        return value


def _place(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise LookupError(name)
    return names.index(name)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise LookupError("no list")
    return list(value)


def arguments_of(raw: bytes, accept: frozenset[str]) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments in an envelope; ``None`` where they cannot be read."""
    try:
        body = decode_body(decode(raw), set(accept))
        args, kwargs = (body["args"], body["kwargs"]) if isinstance(body, dict) else body[:2]
        return list(args or ()), dict(kwargs or {})
    except UNREADABLE:
        return None


def accepted(app: Any) -> frozenset[str]:
    """Content types that an app accepts."""
    return frozenset(prepare_accept_content(app.conf.accept_content))


def is_like(value: Any, wanted: Any) -> bool:
    """Whether an argument is this one, given as a value or as text."""
    if value == wanted:
        return True
    if not isinstance(wanted, str):
        return False
    if str(value) == wanted:
        return True
    try:
        return bool(json.dumps(value) == wanted)
    except (TypeError, ValueError):
        return False
