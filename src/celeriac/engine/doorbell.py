"""Wakes idle slots when messages come.  One waiter for the whole node keeps the number of connections small."""

from __future__ import annotations

from celeriac.broker import Broker
from celeriac.engine.seats import Roster
from celeriac.engine.subscription import Subscription


class Doorbell:
    """Waits for messages while any slot is idle."""

    name = "doorbell"

    def __init__(self, broker: Broker, roster: Roster, queues: Subscription, wait: float) -> None:
        """``wait``: seconds of one wait (:attr:`celeriac.settings.EngineSettings.wait_seconds`)."""
        self._wait = wait
        self._broker = broker
        self._roster = roster
        self._queues = queues

    def run_once(self) -> float:
        """Wait for an idle slot, then for a message, and bring them together."""
        if not self._queues.names:
            return self._wait
        if self._roster.wait_for_idle(self._wait) and self._broker.wait(self._queues.names, self._wait):
            self._roster.ring_one()
        return 0.0
