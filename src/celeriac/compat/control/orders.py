"""What remote control tells the slots: both ends of it.

An order goes to all slots that there are, and into a record that slots read before they take work, so that those that start
later know it too.  The record is written first: a slot that starts meanwhile hears of the order at least once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.worker import state as worker_state

from celeriac.compat.control.memory import Counts, Record
from celeriac.compat.control.modules import load
from celeriac.compat.events import TaskEvents
from celeriac.compat.rate_limits import Buckets
from celeriac.engine.seats import Roster

logger = logging.getLogger("celery.worker.control")

IDS_PER_ORDER = 1000
"""Task ids in one packet to a slot: some 40 KB, where 200 KB would still fit."""

SECTIONS = ("modules", "revoked", "stamps", "time_limits", "rate_limits", "events")
"""In the order in which a new slot obeys: modules first, because they may define the tasks anew."""


class Orders:
    """The supervisor gives, the slots obey.  Made in the supervisor before the slots are forked."""

    def __init__(self, app: Any, events: TaskEvents, buckets: Buckets) -> None:
        self.app = app
        self.buckets = buckets
        self.rate_limits: dict[str, Any] = {}
        """Those that were changed by remote control, by the task's name."""
        self._modules: tuple[list[str], bool] = ([], False)
        self.events = events
        self.counts = Counts(app.tasks)
        self.keep: Callable[[Sequence[str]], None] = lambda _ids: None
        """Writes a revocation that came by remote control where workers that are not there now will find it."""
        self._record = Record()
        self._roster: Roster | None = None
        self._time_limits: dict[str, tuple[float | None, float | None]] = {}

    # -- by the supervisor -----------------------------------------------------------------------------------------

    def serve(self, roster: Roster) -> None:
        """These are the slots to tell."""
        self._roster = roster

    def revoke(self, task_ids: Iterable[str]) -> None:
        """Tasks with these ids are not to be started.  As many are remembered as by Celery (50,000, for three hours)."""
        ids = list(task_ids)
        worker_state.revoked.update(ids)
        self._write()
        for start in range(0, len(ids), IDS_PER_ORDER):
            self._tell("revoke", ids[start : start + IDS_PER_ORDER])

    def revoke_stamped(self, stamps: dict[str, list[Any]]) -> None:
        """Tasks with one of these stamps are not to be started."""
        for header, values in stamps.items():
            worker_state.revoked_stamps.setdefault(header, []).extend(values)
        self._give("stamps", worker_state.revoked_stamps)

    def set_time_limits(self, name: str, soft: float | None, hard: float | None) -> None:
        """Limits for all further runs of a task, in seconds."""
        self._time_limits[name] = (soft, hard)
        set_time_limits(self.app, {name: (soft, hard)})
        self._give("time_limits", {name: (soft, hard)})

    def set_rate_limit(self, name: str, limit: Any) -> None:
        """How often this worker may start a task from now on."""
        self.rate_limits[name] = limit
        set_rate_limits(self.app, {name: limit})
        self.buckets.reset(name)
        self._give("rate_limits", {name: limit})

    def set_modules(self, names: list[str], *, anew: bool) -> None:
        """Have slots that start from now on import these modules."""
        self._modules = (names, anew)
        self._write()

    def set_events(self, on: bool) -> None:
        """Whether slots send task events."""
        self.events.switch(on)
        self._give("events", on)

    def prepare(self) -> None:
        """Leave the state at start-up for the first slots."""
        self._write()

    def _give(self, order: str, detail: Any) -> None:
        self._write()
        self._tell(order, detail)

    def _write(self) -> None:
        revoked, stamps = list(worker_state.revoked), worker_state.revoked_stamps
        values = (self._modules, revoked, stamps, self._time_limits, self.rate_limits, self.events.wanted)
        self._record.write(dict(zip(SECTIONS, values, strict=True)))

    def _tell(self, order: str, detail: Any) -> None:
        for slot in self._roster.all() if self._roster is not None else ():
            slot.order("runner", order, detail)

    # -- by a slot -------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Obey what was ordered before this slot was there."""
        self.counts.take_row()
        self.events.enter_slot()
        standing = self._record.read() or {}
        for order, detail in standing.items():
            self.obey(order, detail)

    def obey(self, order: str, detail: Any) -> None:
        """Do as the supervisor says."""
        if order == "modules":
            load(self.app, detail[0], anew=detail[1])
        elif order in ("revoke", "revoked"):
            worker_state.revoked.update(detail)
        elif order == "stamps":
            worker_state.revoked_stamps.update(detail)
        elif order == "time_limits":
            set_time_limits(self.app, detail)
        elif order == "rate_limits":
            set_rate_limits(self.app, detail)
        elif order == "events":
            self.events.switch(detail)
        else:
            logger.error("The supervisor gave an order that this slot does not know: %s", order)


def set_time_limits(app: Any, limits: dict[str, tuple[float | None, float | None]]) -> None:
    """Set tasks' own limits in this process."""
    for name, (soft, hard) in limits.items():
        task = app.tasks.get(name)
        if task is not None:
            task.soft_time_limit, task.time_limit = soft, hard


def set_rate_limits(app: Any, limits: dict[str, Any]) -> None:
    """Set tasks' own rate limits in this process."""
    for name, limit in limits.items():
        task = app.tasks.get(name)
        if task is not None:
            task.rate_limit = limit


def any_revoked() -> bool:
    """Whether any task is revoked at all."""
    return bool(worker_state.revoked or worker_state.revoked_stamps)


def is_revoked(task_id: str, headers: dict[str, Any]) -> bool:
    """Whether a task is revoked, by its id or by one of its stamps."""
    return task_id in worker_state.revoked or revoked_stamp(headers) is not None


def revoked_stamp(headers: dict[str, Any]) -> dict[str, Any] | None:
    """The stamp by which a task is revoked, as Celery names it in its log."""
    stamps = headers.get("stamps")
    if not worker_state.revoked_stamps or not isinstance(stamps, dict):
        return None
    found = ((name, overlap(stamps.get(name), values)) for name, values in worker_state.revoked_stamps.items())
    return next(({name: values[0]} for name, values in found if values), None)


def overlap(stamp: Any, revoked: list[Any]) -> list[Any]:
    """Which values of a task's stamp (one or several) are among the revoked ones."""
    values = stamp if isinstance(stamp, (list, tuple, set)) else [stamp]
    return [value for value in values if value is not None and value in revoked]
