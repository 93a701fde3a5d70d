"""Moves scheduled messages into their queues when they are due."""

from __future__ import annotations

from celeriac.broker import Broker
from celeriac.engine.subscription import Subscription
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import MessagesPromoted

LONGEST_SLEEP = 0.1
"""Seconds between looks at the schedule: how late a message may be that somebody else schedules for soon."""
EMPTY_SLEEP = 0.2
"""The same while the schedule is empty."""

BATCH = 1000


class Scheduler:
    """Promotes due messages.  Every node may do so; each message moves once."""

    name = "scheduler"

    def __init__(self, broker: Broker, queues: Subscription, bus: Bus) -> None:
        self._broker = broker
        self._queues = queues
        self._bus = bus

    def run_once(self) -> float:
        """Promote what is due; return when to look again."""
        if not self._queues.names:
            return EMPTY_SLEEP
        moved, next_due = self._broker.promote(self._queues.names, BATCH)
        if moved and self._bus.listening:
            self._bus.emit(MessagesPromoted(moved))
        return EMPTY_SLEEP if next_due is None else min(next_due, LONGEST_SLEEP)
