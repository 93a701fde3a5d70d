"""Puts the work of the dead in its place: back into its queue, or among the dead letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from celeriac.broker import Broker
from celeriac.engine.ledger import Ledger
from celeriac.engine.outbox import Settler
from celeriac.engine.runner import Fate, Runner
from celeriac.message import Delivery
from celeriac.outcome import Outcome, State
from celeriac.settings import EngineSettings
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import OwnerRescued

logger = logging.getLogger("celeriac.engine")

PAGE = 500


class Rescuer:
    """Rescues owners: this node's own, at once, from their ledgers; and those of nodes that went silent."""

    name = "rescuer"

    def __init__(self, broker: Broker, settler: Settler, runner: Runner, settings: EngineSettings, bus: Bus) -> None:
        self._broker = broker
        self._settler = settler
        self._runner = runner
        self._settings = settings
        self._bus = bus
        self._reached_at = self._reached_since = float("-inf")

    # -- other nodes -----------------------------------------------------------------------------------------------

    def run_once(self) -> float:
        """Look for owners whose time ran out."""
        expired = self._broker.expired()
        now = time.monotonic()
        grace = self._settings.beat_seconds * 2
        # After an outage of the store, or a pause of this node, the time of the living may have run out as well.  Whoever is
        # alive gets the chance to beat first.
        if now - self._reached_at > grace:
            self._reached_since = now
        self._reached_at = now
        if now - self._reached_since >= grace:
            for owner in expired:
                logger.warning("%s went silent; taking its work over", owner)
                self.rescue(owner)
        return self._settings.beat_seconds / 2

    def rescue(self, owner: str) -> int:
        """Rescue an owner that nothing is known about; return how many messages it held."""
        return self._rescue(owner, {}, {}, Fate.SILENT)

    # -- this node -------------------------------------------------------------------------------------------------

    def rescue_slot(self, owner: str, ledger: Ledger, fates: Mapping[int, tuple[Fate, str]]) -> int:
        """Rescue a slot of this node by its ledger; return how many messages it held.

        What had finished is settled, what had started meets its fate, and the rest goes back unharmed.

        Args:
            owner: the slot's.
            ledger: the slot's.
            fates: why it was killed, by the tag of the task that this was about; 0 is for all others.
        """
        fate = fates.get(0, (Fate.CRASHED, ""))
        started = {entry.tag for entry in ledger.running()} | ledger.unkept()
        return self._rescue(owner, ledger.finished(), {tag: fates.get(tag, fate) for tag in started}, None)

    # -- both ------------------------------------------------------------------------------------------------------

    def _rescue(
        self,
        owner: str,
        finished: Mapping[int, Outcome],
        running: Mapping[int, tuple[Fate, str]],
        others: Fate | None,
    ) -> int:
        started, count = time.monotonic(), 0
        self._broker.condemn(owner)
        while held := self._broker.leased(owner, PAGE):
            # Newest first: what goes back to the head of a queue comes to lie in its old order.
            outcomes = [self._judge(delivery, finished, running, others) for delivery in reversed(held)]
            self._settler.rescue(owner, outcomes)
            count += len(held)
        self._broker.unregister(owner)
        if self._bus.listening:
            self._bus.emit(OwnerRescued(owner, count, time.monotonic() - started))
        return count

    def _judge(
        self,
        delivery: Delivery,
        finished: Mapping[int, Outcome],
        running: Mapping[int, tuple[Fate, str]],
        others: Fate | None,
    ) -> Outcome:
        if delivery.tag in finished:
            return finished[delivery.tag]._replace(delivery=delivery)
        if delivery.tag in running:
            fate, detail = running[delivery.tag]
            return self._runner.recover(delivery, fate, detail)
        if others is not None:
            return self._runner.recover(delivery, others, f"{others.value}: its node stopped answering")
        return Outcome(delivery, State.INTERRUPTED, requeue=delivery.raw)
