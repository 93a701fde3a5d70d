"""What the kombu transport of a store of ours needs beside the broker's queues: mailboxes and bindings.

Nothing here is worth waiting for the disk: whoever asks a worker something asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

SHORTEST_IDLE = 60.0
"""Seconds that a listener may stay away at least.  Less, and a machine that is suspended for a moment loses its mailbox."""

DEFAULT_TTL = 300.0
"""Seconds that a message is kept for a listener that does not fetch it.  It bounds what a monitor that hangs can pile up."""


class Binding(NamedTuple):
    """One way from an exchange to a queue, as kombu's exchange types read it."""

    routing_key: str
    pattern: str | None
    queue: str


class Mailboxes(Protocol):
    """The mailboxes of one store.  May be used by several threads, and across forks."""

    # -- mailboxes -------------------------------------------------------------------------------------------------

    def open(self, name: str, idle: float | None, ttl: float | None) -> None:
        """Make a mailbox, or say that it is in use.  ``idle`` and ``ttl`` are in seconds; ``None`` takes the default."""

    def seen(self, names: Iterable[str]) -> int:
        """Their listener is alive.  Returns how many of them are still there."""

    def is_open(self, name: str) -> bool:
        """Whether there is a mailbox of this name."""

    def close(self, name: str) -> None:
        """Forget a mailbox, what is in it, and its bindings."""

    # -- messages --------------------------------------------------------------------------------------------------

    def put(self, names: Sequence[str], raw: bytes) -> list[str]:
        """Put a message into mailboxes; return the names that are none, for the caller to deal with."""

    def take(self, name: str) -> bytes | None:
        """Take the oldest message out; ``None`` when there is none."""

    def wait(self, names: Sequence[str], timeout: float) -> bool:
        """Block until one of the mailboxes has a message, up to ``timeout`` seconds; return whether one has."""

    def count(self, name: str) -> int:
        """How many messages wait in it."""

    def empty(self, name: str) -> int:
        """Throw away what is in it; return how many that was."""

    # -- bindings --------------------------------------------------------------------------------------------------

    def bind(self, exchange: str, binding: Binding) -> None:
        """Have an exchange send to a queue."""

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Undo :meth:`bind`."""

    def bindings(self, exchange: str) -> list[Binding]:
        """Where an exchange sends to."""
