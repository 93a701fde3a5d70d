"""Schedulers and a worker of periodic tasks under test; run as a program it is one scheduler in simulated time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

from celeriac import Celery
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.compat.periodic.state import EntryState, States

app = Celery("scheduling", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))
app.conf.timezone = "UTC"


class SimulatedStates(States):
    """The states of entries, read at a time that runs faster."""

    speed = float(os.environ.get("TEST_SPEED", "1"))
    origin = float(os.environ.get("TEST_ORIGIN", "0"))
    """When the simulation began, by the store's clock."""
    start = float(os.environ.get("TEST_START", "0"))  # type: ignore[assignment]
    end = float(os.environ.get("TEST_END", "inf"))

    def read(self, names: Sequence[str]) -> tuple[float, dict[str, EntryState | None]]:
        now, states = super().read(names)
        return min(self.start + max(0.0, now - self.origin) * self.speed, self.end), states


def simulate() -> None:
    scheduler = StoreScheduler(app)
    scheduler.states = SimulatedStates(scheduler.store)
    while True:
        time.sleep(min(scheduler.tick(), 0.05))


if __name__ == "__main__":
    sys.exit(simulate())
