"""Rescues the slots of this node that died, as soon as they have."""

from __future__ import annotations

import logging
import queue

from celeriac.engine.rescuer import Rescuer
from celeriac.engine.seats import SlotHandle
from celeriac.errors import StoreFull, StoreUnavailable

logger = logging.getLogger("celeriac.engine")

WAIT_SECONDS = 0.5


class SlotRescue:
    """A queue of dead slots.  While the store is away they wait; their work is safe in it."""

    name = "slot-rescue"

    def __init__(self, rescuer: Rescuer) -> None:
        self._rescuer = rescuer
        self._dead: queue.SimpleQueue[SlotHandle] = queue.SimpleQueue()
        self.pending = 0

    def add(self, slot: SlotHandle) -> None:
        """Rescue this slot when its turn comes."""
        self.pending += 1
        self._dead.put(slot)

    def run_once(self) -> float:
        """Rescue one slot, waiting for it if there is none."""
        try:
            slot = self._dead.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            return 0.0
        try:
            count = self._rescuer.rescue_slot(slot.owner, slot.ledger, slot.fates)
        except (StoreUnavailable, StoreFull):
            self._dead.put(slot)
            raise
        except Exception:
            self.pending -= 1
            raise
        self.pending -= 1
        logger.info("Slot %d (pid %d) is rescued: %d messages put in their place", slot.number, slot.pid, count)
        return 0.0
