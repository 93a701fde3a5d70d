"""Schedulers and a worker of periodic tasks under test; run as a program it is one scheduler in simulated time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from celeriac import Celery
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.compat.periodic.state import EntryState, States
from celeriac.keyvalue import KeyValueStore
from tests.helpers import wait_until

app = Celery("scheduling", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))
app.conf.timezone = "UTC"


class SimulatedStates(States):
    """The states of entries, read at a time that runs faster."""

    def __init__(self, store: KeyValueStore, *, speed: float, origin: float, begin: float, end: float) -> None:
        """``origin``: when the simulation began, by the store's clock; ``begin`` and ``end``: what is simulated."""
        super().__init__(store)
        self._speed = speed
        self._origin = origin
        self._begin = begin
        self._end = end

    def read(self, names: Sequence[str]) -> tuple[float, dict[str, EntryState | None]]:
        now, states = super().read(names)
        return min(self._begin + max(0.0, now - self._origin) * self._speed, self._end), states


def simulate(directory: Path) -> None:
    """Wait for the others, then be one scheduler of the simulation that the file ``go`` describes."""
    scheduler = StoreScheduler(app)
    (directory / f"ready-{os.getpid()}").touch()
    go = wait_until((directory / "go").exists, 60) and json.loads((directory / "go").read_text())
    scheduler.states = SimulatedStates(scheduler.store, **go)
    while True:
        time.sleep(min(scheduler.tick(), 0.05))


if __name__ == "__main__":
    sys.exit(simulate(Path(sys.argv[1])))
