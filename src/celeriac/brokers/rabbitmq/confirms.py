"""What the server says about messages that were published: taken, refused, or undeliverable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from celeriac.brokers.rabbitmq.wire import Entry


class Published(NamedTuple):
    """What became of a batch."""

    refused: tuple[int, ...]
    """Which of the messages a queue did not take, by their place in the batch: it is full (``reject-publish``), or is away: a quorum queue
    elects a leader, a node of the cluster is down."""
    unroutable: frozenset[tuple[str, str]]
    """Exchange and routing key of messages that no queue was bound for."""


class Ahead(NamedTuple):
    """A message that was published without waiting."""

    entry: Entry
    epoch: int
    """Of the connection that it was sent by."""
    number: int


class Confirms:
    """Of one channel, which numbers the messages that are published on it from 1."""

    def __init__(self) -> None:
        self.pending: set[int] = set()
        """Neither confirmed nor refused yet."""
        self.upcoming = 1
        """Number of the next message."""
        self._refused: set[int] = set()
        self._returned: list[tuple[str, str]] = []

    def sent(self, count: int) -> None:
        """So many messages were sent."""
        self.pending.update(range(self.upcoming, self.upcoming + count))
        self.upcoming += count

    def told(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The server has taken or refused a message, with ``multiple`` all up to it."""
        tags = [each for each in self.pending if each <= tag] if multiple else [tag]
        self.pending.difference_update(tags)
        if not taken:
            self._refused.update(tags)

    def came_back(self, exchange: str, key: str) -> None:
        """No queue was bound for a message."""
        self._returned.append((exchange, key))

    def end(self, first: int, entries: Sequence[Entry]) -> Published:
        """What became of a batch, now that nothing is pending.

        Args:
            first: what :attr:`upcoming` was before it.
            entries: the batch.
        """
        returned: set[tuple[str, str]] = set()
        if self._returned:
            # Another batch may be on its way that nobody has waited for yet: what came back of that is kept.
            returned = {(entry.exchange.decode(), entry.key.decode()) for entry in entries}.intersection(self._returned)
            self._returned = [address for address in self._returned if address not in returned]
        refused = [tag for tag in sorted(self._refused) if first <= tag < first + len(entries)] if self._refused else []
        self._refused.difference_update(refused)
        return Published(tuple(tag - first for tag in refused), frozenset(returned))
