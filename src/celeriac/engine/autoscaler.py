"""Grows and shrinks the number of slots with the load (``--autoscale=MAX,MIN``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from celeriac.broker import Broker
from celeriac.engine.seats import Roster
from celeriac.engine.subscription import Subscription
from celeriac.settings import EngineSettings

CHECK_SECONDS = 1.0
KEEP_SECONDS = float(os.environ.get("AUTOSCALE_KEEPALIVE", "30"))
"""How long a slot must not have been needed before it goes.  Default and variable are Celery's."""


class Autoscaler:
    """Adds slots while messages wait and nobody is idle; removes one at a time when some have been idle for a while."""

    name = "autoscaler"

    def __init__(
        self,
        broker: Broker,
        roster: Roster,
        queues: Subscription,
        settings: EngineSettings,
        scale: Callable[[int], None],
    ) -> None:
        assert settings.autoscale is not None
        self.fewest, self.most = settings.autoscale
        self._broker = broker
        self._roster = roster
        self._queues = queues
        self._scale = scale
        self._needed_at = time.monotonic()

    def run_once(self) -> float:
        """Compare demand with what is there."""
        slots = self._roster.all()
        idle = sum(slot.idle for slot in slots)
        wanted = len(slots)
        if not idle:
            self._needed_at = time.monotonic()
            waiting = sum(depth.ready for depth in self._broker.depth(self._queues.names))
            wanted += min(waiting, max(1, wanted))
        elif time.monotonic() - self._needed_at > KEEP_SECONDS:
            self._needed_at = time.monotonic()
            wanted -= 1
        wanted = max(self.fewest, min(wanted, self.most))
        if wanted != len(slots):
            self._scale(wanted)
        return CHECK_SECONDS
