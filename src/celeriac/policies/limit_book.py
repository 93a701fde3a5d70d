"""What limits allow: as their tasks declare them, and as changed at run time for the whole cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celeriac.keyvalue import Change, KeyValueStore, Namespace
from celeriac.policies.limit import Allowance
from celeriac.policies.limit_state import as_dict, from_dict

SPACE = Namespace("limits")
BOOK = "book"
"""The key of what is declared and what was changed; all other keys are states."""

NO_LIMIT = Allowance(None, 1, None)


class LimitBook:
    """All limits by name.  What other workers declare is known, too: their messages may wait in lanes that this one empties."""

    def __init__(self, declared: Mapping[str, Allowance]) -> None:
        self.declared = dict(declared)
        self.elsewhere: dict[str, Allowance] = {}
        """Declared by others."""
        self.changed: dict[str, Allowance] = {}
        self._raw: bytes | None = None

    def read(self, raw: bytes | None) -> None:
        """Take note of the store's entry."""
        if raw == self._raw:
            return
        self._raw = raw
        stored = json.loads(raw) if raw else {}
        self.elsewhere = _allowances(stored.get("declared", {}))
        self.changed = _allowances(stored.get("changed", {}))

    def allowed(self, name: str) -> Allowance:
        """What the limit of this name allows.  One that nobody declares any more limits nothing."""
        return self.changed.get(name) or self.declared.get(name) or self.elsewhere.get(name) or NO_LIMIT

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self.declared, *self.elsewhere, *self.changed})

    # -- for those who write it ------------------------------------------------------------------------------------

    def load(self, store: KeyValueStore) -> None:
        """Read the store's entry."""
        _, (entry,) = store.read(SPACE, [BOOK])
        self.read(entry.value if entry else None)

    def declare(self, store: KeyValueStore) -> None:
        """Tell the store what this app declares.  Writes only what is new."""
        self.load(store)
        if any(self.elsewhere.get(name) != allowed for name, allowed in self.declared.items()):
            self._update(store, "declared", {name: as_dict(allowed) for name, allowed in self.declared.items()})

    def change(self, store: KeyValueStore, name: str, allowed: Allowance | None) -> None:
        """Change a limit for all workers, or undo that; they notice within a second."""
        self._update(store, "changed", {name: None if allowed is None else as_dict(allowed)})

    def forget(self, store: KeyValueStore, name: str) -> None:
        """Take a limit out of the store that no app declares any more.  What waits for it is let in without one."""
        self._update(store, "declared", {name: None})

    def _update(self, store: KeyValueStore, part: str, values: Mapping[str, Any]) -> None:
        def change(raw: bytes | None, _now: float) -> Change[bytes]:
            stored = json.loads(raw) if raw else {}
            merged = {**stored.get(part, {}), **values}
            stored[part] = {name: value for name, value in merged.items() if value is not None}
            new = json.dumps(stored).encode()
            return Change(new, new)

        self.read(store.update(SPACE, BOOK, change))


def _allowances(stored: Mapping[str, Any]) -> dict[str, Allowance]:
    return {name: from_dict(each) for name, each in stored.items()}
