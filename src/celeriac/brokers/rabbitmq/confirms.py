"""What the server says about messages that were published: taken, refused, or undeliverable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from celeriac.brokers.rabbitmq.wire import Entry


class Published(NamedTuple):
    """What became of a batch."""

    refused: tuple[int, ...]
    """Which of the messages a queue did not take (``reject-publish``), by their place in the batch."""
    unroutable: frozenset[tuple[str, str]]
    """Exchange and routing key of messages that no queue was bound for."""


class Confirms:
    """Of one channel, which numbers the messages that are published on it from 1."""

    def __init__(self) -> None:
        self.pending: set[int] = set()
        """Neither confirmed nor refused yet."""
        self._sent = 0
        self._refused: list[int] = []
        self._returned: list[tuple[str, str]] = []

    def begin(self) -> int:
        """A batch begins; return the number of its first message."""
        self._refused.clear()
        return self._sent + 1

    def sent(self, count: int) -> None:
        """So many messages were sent."""
        self.pending.update(range(self._sent + 1, self._sent + count + 1))
        self._sent += count

    def told(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The server has taken or refused a message, with ``multiple`` all up to it."""
        tags = [each for each in self.pending if each <= tag] if multiple else [tag]
        self.pending.difference_update(tags)
        if not taken:
            self._refused += tags

    def came_back(self, exchange: str, key: str) -> None:
        """No queue was bound for a message."""
        self._returned.append((exchange, key))

    def end(self, first: int, entries: Sequence[Entry]) -> Published:
        """What became of a batch, now that nothing is pending.

        Args:
            first: what :meth:`begin` returned.
            entries: the batch.
        """
        returned: set[tuple[str, str]] = set()
        if self._returned:
            # Another batch may be on its way that nobody has waited for yet: what came back of that is kept.
            returned = {(entry.exchange.decode(), entry.key.decode()) for entry in entries}.intersection(self._returned)
            self._returned = [address for address in self._returned if address not in returned]
        return Published(tuple(tag - first for tag in sorted(self._refused) if tag >= first), frozenset(returned))
