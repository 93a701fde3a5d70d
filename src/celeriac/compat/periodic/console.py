"""What ``celeriac schedule`` shows and does."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from celeriac.compat.periodic.entries import Entry, arguments_text, describe
from celeriac.compat.periodic.scheduler import OFFICE, StoreScheduler
from celeriac.compat.periodic.state import EntryState
from celeriac.engine.leader import LEADERS
from celeriac.errors import ConfigurationError


class Listed(NamedTuple):
    """One periodic task as it is shown.  Moments are seconds since the epoch."""

    name: str
    task: str
    schedule: str
    arguments: str
    next: float | None
    """The next tick; ``None`` while it is paused, or where a custom schedule does not tell."""
    last_sent: float | None
    last_task_id: str
    sent: int
    skipped: int
    paused: bool
    missed: str
    overlap: bool
    origin: str
    """``configured``, or ``edited`` by this command."""


class Console:
    """Looks at the schedule of one app and changes it."""

    def __init__(self, scheduler: StoreScheduler) -> None:
        self._scheduler = scheduler
        self._states = scheduler.states
        self.now = 0.0
        """The store's time at the last look."""

    def check(self, names: Iterable[str]) -> None:
        """Raise ``ConfigurationError`` when one of the names is not in the schedule."""
        known = self._scheduler.schedule
        for name in names:
            if name in known:
                continue
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It has: {', '.join(sorted(known)) or 'nothing'}."
            raise ConfigurationError(f"The schedule has no {name!r}.{hint}")

    def listed(self) -> list[Listed]:
        """All entries, by name."""
        entries = self._scheduler.schedule
        self.now, states = self._states.read(list(entries))
        return [self._listed(entries[name], states[name]) for name in sorted(entries)]

    def leader(self) -> str:
        """Who leads; empty when nobody does."""
        now, (entry,) = self._scheduler.store.read(LEADERS, [OFFICE])
        held: dict[str, Any] = json.loads(entry.value) if entry else {"until": 0.0, "name": ""}
        return str(held["name"]) if held["until"] > now else ""

    def pause(self, name: str) -> None:
        """Send nothing for this entry from now on."""
        self._states.change(name, lambda state: replace(state, paused=True))

    def resume(self, name: str) -> None:
        """Go on from now."""
        self._states.resume(name)

    def run(self, name: str) -> str:
        """Send an entry's task now; return its id."""
        _, states = self._states.read([name])
        state = states[name]
        entry = self._scheduler.schedule[name]
        return self._scheduler.sender.send_now(entry.edited(state.changes) if state else entry)

    def edit(self, name: str, changes: dict[str, Any], *, reset: bool) -> Listed:
        """Keep changes, on top of earlier ones unless those are dropped."""
        entry = self._scheduler.schedule[name]
        entry.edited(changes)  # refuses what cannot work before it is kept
        state = self._states.change(
            name, lambda old: replace(old, changes={**({} if reset else old.changes), **changes})
        )
        self.now, _ = self._states.read([])
        return self._listed(entry, state)

    def _listed(self, configured: Entry, state: EntryState | None) -> Listed:
        entry = configured.edited(state.changes) if state else configured
        upcoming = None if state is not None and state.paused else self._next(entry, state)
        known = state or EntryState(self.now)
        return Listed(
            name=entry.name, task=entry.task, schedule=describe(entry.schedule),
            arguments=arguments_text(entry.args, entry.kwargs), next=upcoming, last_sent=known.sent_at or None,
            last_task_id=known.task_id, sent=known.count, skipped=known.skipped, paused=known.paused,
            missed=entry.missed.value, overlap=entry.overlap, origin=entry.origin,
        )  # fmt: skip

    def _next(self, entry: Entry, state: EntryState | None) -> float | None:
        try:
            return entry.ticks().next_after(state.last if state else self.now, self.now)
        except NotImplementedError:
            return None
