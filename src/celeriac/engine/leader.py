"""Elects one of several processes: a lease in the key-value store, renewed by whoever holds it.

A leader that was paused for longer than its lease may still believe in itself for a moment.  So what leaders write carries a fence of
its own (:attr:`Leader.token`, or a compare-and-set): election only keeps others from doing the same work again and again.
"""

from __future__ import annotations

import json
from typing import Any

from celeriac.keyvalue import Change, KeyValueStore, Namespace

LEADERS = Namespace("leaders", listed=True)

LEASE_SECONDS = 10.0
"""How long a leader that went silent stays one.  Too low, and a slow network changes leaders again and again; too high, and
nobody does the leader's work for so long after it died."""


class Leader:
    """One candidate for one office.

    Args:
        store: where the lease lies; its clock decides.
        office: what the leader is wanted for.
        name: the candidate's own, never used by another.
        lease: seconds; see :data:`LEASE_SECONDS`.
    """

    def __init__(self, store: KeyValueStore, office: str, name: str, lease: float = LEASE_SECONDS) -> None:
        self.office = office
        self.name = name
        self.lease = lease
        self.token = 0
        """Grows with every change of leaders: of two that believe in themselves the higher one is right.  0: not elected."""
        self.rival = ""
        """Who leads, when it is not this one."""
        self._store = store

    @property
    def pause(self) -> float:
        """Seconds until :meth:`hold` should be called again: three calls may be missed."""
        return self.lease / 4

    def hold(self) -> bool:
        """Become or stay the leader; return whether it is.  One or two round trips.

        Raises:
            StoreUnavailable: nothing is known; this candidate does not lead until it knows.
        """
        self.token = 0
        self.token, self.rival = self._store.update(LEADERS, self.office, self._claim)
        return self.token > 0

    def _claim(self, old: bytes | None, now: float) -> Change[tuple[int, str]]:
        held: dict[str, Any] = json.loads(old) if old else {"name": "", "token": 0, "until": 0.0}
        # A clock that was set back leaves a lease in the far future; nobody renews it, so it is not believed.
        alive = now < held["until"] <= now + 2 * held.get("lease", self.lease)
        if alive and held["name"] != self.name:
            return Change((0, held["name"]), keep=True)
        if held["name"] == self.name and held["until"] - now > self.lease - self.pause / 2:
            return Change((held["token"], ""), keep=True)  # renewed just now
        token = held["token"] + (held["name"] != self.name)
        value = {"name": self.name, "token": token, "until": now + self.lease, "lease": self.lease}
        # Kept for long after the lease has run out, so that tokens go on growing.
        return Change((token, ""), json.dumps(value).encode(), ttl=max(86_400.0, 10 * self.lease))

    def resign(self) -> None:
        """Let another take over at once.  Does no harm where this one does not lead."""
        self.token = 0
        self._store.update(LEADERS, self.office, self._leave)

    def _leave(self, old: bytes | None, now: float) -> Change[None]:
        held = json.loads(old) if old else {}
        if held.get("name") != self.name:
            return Change(None, keep=True)
        return Change(None, json.dumps({**held, "name": "", "until": 0.0}).encode(), ttl=86_400.0)
