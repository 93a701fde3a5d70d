"""Keeps the leases of the node's slots alive: one call for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celeriac.broker import Broker
from celeriac.engine.seats import Roster
from celeriac.engine.subscription import Subscription
from celeriac.errors import StoreError
from celeriac.settings import EngineSettings

logger = logging.getLogger("celeriac.engine")


class Beat:
    """Beats for all slots that are ready."""

    name = "beat"

    def __init__(
        self,
        broker: Broker,
        roster: Roster,
        queues: Subscription,
        settings: EngineSettings,
        on_lost: Callable[[str], None],
        on_broker: Callable[[str], None],
    ) -> None:
        """``on_lost`` is called with each owner whose leases were taken over, ``on_broker`` after each beat with why the broker
        could not be reached, or an empty text.
        """
        self._broker = broker
        self._roster = roster
        self._queues = queues
        self._settings = settings
        self._on_lost = on_lost
        self._on_broker = on_broker
        self._suspected: set[str] = set()
        """What the last beat did not reach."""

    def run_once(self) -> float:
        """Beat once."""
        try:
            lost = self._broker.beat(self._roster.owners(), self._queues.names, self._settings.beat_ttl)
        except StoreError as error:
            self._on_broker(str(error))
            raise
        self._on_broker("")
        for owner in self._really(lost):
            logger.warning("The leases of %s were taken over while this node was out of reach", owner)
            self._on_lost(owner)
        return self._settings.beat_seconds

    def _really(self, lost: list[str]) -> list[str]:
        """Those that were taken over, without those that have given their names up while the beat was on its way."""
        closing = {slot.owner: slot.closing for slot in self._roster.all()}
        found = [owner for owner in lost if owner in closing and (not closing[owner] or owner in self._suspected)]
        self._suspected = set(lost)
        return found
