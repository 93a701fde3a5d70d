"""What one owner gets of what is pushed to it: all but what belongs to others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from celeriac.broker import Listening
from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.leases import Leases
from celeriac.brokers.rabbitmq.stream import Kind, Stream
from celeriac.brokers.rabbitmq.suspects import PAUSE, Suspects
from celeriac.errors import StoreUnavailable

LONGEST_REST = 60.0
"""Seconds."""


class Intake:
    """The stream of one owner."""

    def __init__(
        self, owner: str, stream: Stream, suspects: Suspects, connection: Connection, leases: Leases
    ) -> None:  # fmt: skip
        self.owner = owner
        self.stream = stream
        self._suspects = suspects
        self._connection = connection
        self._leases = leases

    @property
    def is_careful(self) -> bool:
        """Whether messages are fetched for now: those that others hold are looked past by that, and would be pushed to us again
        and again.
        """
        return self._suspects.are_about(self._connection)

    def take(self, queues: Sequence[str], limit: int) -> list[tuple[str, wire.Gotten]]:
        """Messages to lease."""
        pushed = self.stream.take(queues, limit)
        if not pushed:
            return pushed
        gotten = [got for _, got in pushed]
        try:
            clear, drop, hold = self._suspects.sift(gotten, self._connection)
        except BaseException:  # nobody knows whose they are
            with suppress(StoreUnavailable):
                self._give_back([got.tag for got in gotten])
            raise
        if not drop and not hold:
            return pushed
        with self._connection.lock:
            self._connection.send(self._leases.drop(drop))
        self._give_back(hold)
        mine = {got.tag for got in clear}
        return [(queue, got) for queue, got in pushed if got.tag in mine]

    def _give_back(self, tags: Sequence[int]) -> None:
        self.stream.withdraw()
        with self._connection.lock:
            self._connection.send(self._leases.requeue(tags))

    def listen(self, queues: Sequence[str], room: int, *, quiet: bool) -> Listening:
        """See :meth:`celeriac.broker.Broker.listen`."""
        if self.is_careful:
            return Listening(None, PAUSE)
        try:
            fd = self.stream.listen(queues, room, quiet=quiet)
        except StoreUnavailable:
            return Listening(None, PAUSE)  # the next turn tells
        if fd is None:
            return Listening(None, 0.0)
        fetched = any(self.stream.kind(queue) is Kind.FETCHED for queue in queues)
        return Listening(fd, PAUSE if fetched else self.stream.load_left() or LONGEST_REST)
