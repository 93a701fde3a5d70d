"""Messages that are asked for (``basic.get``) and not pushed.

It costs the server half as much again for each message, and many times as much in quorum queues.  It is for owners that did not
subscribe; for those that can hold fewer messages than they serve queues, because consumers would bring one of each queue; for queues
that go with their last consumer; and for the time after a lost connection, when messages that others hold have to be looked past:
they would be pushed here again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.leases import Leases
from celeriac.brokers.rabbitmq.suspects import PAUSE, Suspects
from celeriac.brokers.rabbitmq.topology import Topology
from celeriac.errors import StoreUnavailable
from celeriac.message import Delivery

MOST_HELD = 200
"""How many messages that others hold are looked past in one lease."""


class Fetching:
    """Leases by asking."""

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        leases: Leases,
        suspects: Suspects,
        reconnect: Callable[[], None],
    ) -> None:
        """``reconnect``: called when there may be another connection than before."""
        self._connection = connection
        self._topology = topology
        self._leases = leases
        self._suspects = suspects
        self._reconnect = reconnect

    def take(self, owner: str, queue: str, limit: int) -> list[Delivery]:
        """Lease from one queue.  What others hold is looked past and given back."""
        self._topology.need(queue)
        taken: list[wire.Gotten] = []
        held: list[int] = []
        epoch = self._connection.epoch
        while len(taken) < limit and len(held) < MOST_HELD:
            gotten = self._get(queue, limit - len(taken))
            if self._connection.epoch != epoch:  # what came before is the server's again
                epoch = self._connection.epoch
                taken, held = [], []
            if not gotten:
                break
            try:
                clear, drop, hold = self._suspects.sift(gotten, self._connection)
            except BaseException:  # nobody knows whose they are
                with suppress(StoreUnavailable):
                    tags = [got.tag for got in (*taken, *gotten)]
                    self._connection.send(self._leases.requeue([*held, *tags]))
                raise
            taken += clear
            held += hold
            self._connection.send(self._leases.drop(drop))
            if not hold and not drop:
                break
        if held:
            if not taken:
                time.sleep(PAUSE)
            self._connection.send(self._leases.requeue(held))
        return [self._leases.add(owner, queue, got) for got in taken]

    def _get(self, queue: str, limit: int) -> list[wire.Gotten]:
        try:
            gotten = self._connection.get(queue.encode(), limit)
        except ChannelClosed as error:
            if error.code != 404:
                raise
            self._topology.forget()  # somebody has deleted the queue
            self._topology.need(queue)
            gotten = []
        self._reconnect()
        self._leases.taken(gotten)
        return gotten
