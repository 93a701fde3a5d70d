"""What is known of each periodic task beside its definition: up to where it is worked off, and what somebody changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from celeriac.keyvalue import Change, KeyValueStore, Namespace

SCHEDULE = Namespace("schedule", listed=True)

KEPT_SECONDS = 90 * 86_400.0
"""How long the state of an entry is kept that no scheduler has seen: it is then as if it were new."""


@dataclass(frozen=True, slots=True)
class EntryState:
    """One entry's state."""

    last: float
    """Ticks up to this moment are sent: seconds since the epoch."""
    count: int = 0
    """Ticks sent so far."""
    skipped: int = 0
    """Ticks that were not sent because the last run had not ended."""
    paused: bool = False
    task_id: str = ""
    """Of the last task that was sent."""
    sent_at: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)
    """What somebody changed: see :meth:`~celeriac.compat.periodic.entries.Entry.edited`."""


class States:
    """The states of an app's entries."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def read(self, names: Sequence[str]) -> tuple[float, dict[str, EntryState | None]]:
        """The store's time and the states, in one round trip."""
        now, entries = self._store.read(SCHEDULE, names)
        return now, {name: _decode(entry.value) if entry else None for name, entry in zip(names, entries, strict=True)}

    def start(self, name: str) -> EntryState:
        """Begin with an entry that is new: its first tick is the first from now on."""
        return self.change(name, lambda state: state)

    def change(self, name: str, edit: Callable[[EntryState], EntryState]) -> EntryState:
        """Change a state atomically; a new one is worked off up to now.  Returns the new state."""

        def work(old: bytes | None, now: float) -> Change[EntryState]:
            state = edit(_decode(old) if old else EntryState(now))
            return Change(state, json.dumps(asdict(state)).encode(), ttl=KEPT_SECONDS)

        return self._store.update(SCHEDULE, name, work)

    def advance(self, name: str, was: float, **changes: Any) -> EntryState:
        """Move on from ``was``, unless somebody else already has; pauses and edits made meanwhile stay."""
        return self.change(name, lambda state: replace(state, **changes) if state.last == was else state)

    def resume(self, name: str) -> EntryState:
        """Go on with a paused entry.  What would have been due meanwhile was not missed."""

        def work(old: bytes | None, now: float) -> Change[EntryState]:
            state = replace(_decode(old), paused=False, last=now) if old else EntryState(now)
            return Change(state, json.dumps(asdict(state)).encode(), ttl=KEPT_SECONDS)

        return self._store.update(SCHEDULE, name, work)


def _decode(raw: bytes) -> EntryState:
    known = json.loads(raw)
    return EntryState(**{name: known[name] for name in EntryState.__slots__ if name in known})
