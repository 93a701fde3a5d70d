"""The contract of a result store: what the engine and ``AsyncResult`` need from those in ``backends/``.

It keeps encoded records by task id, groups by group id, and the counts of chords.  What the bytes mean is for the
caller.  A backend may be used by several threads; it must not be carried across a fork.  Every method may raise
:class:`~celeriac.errors.StoreUnavailable` or :class:`~celeriac.errors.StoreFull`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from celeriac.outcome import ChordPart, Result

FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
"""States of Celery after which nothing more happens to a task."""


class Backend(ABC):
    """Results, groups and chord counts in one store."""

    url: str
    """Where it is, without password; for people to read."""

    round_trips: int
    """How many times this object has gone to the store and waited for the answer."""

    @abstractmethod
    def store(self, results: Sequence[Result], *, guarded: bool = False) -> None:
        """Write results, all in one round trip, and wake whoever waits for them.

        With ``guarded`` a stored ``SUCCESS`` is kept as it is.
        """

    @abstractmethod
    def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """The stored records, in the order asked; ``None`` where there is none or it has expired."""

    @abstractmethod
    def forget(self, task_ids: Sequence[str]) -> None:
        """Delete results."""

    @abstractmethod
    def wait(self, task_ids: Sequence[str], timeout: float) -> bool:
        """Block until one of these results may have changed, up to ``timeout`` seconds; return whether it may."""

    @abstractmethod
    def store_group(self, group_id: str, payload: bytes) -> None:
        """Keep the record of a group."""

    @abstractmethod
    def fetch_group(self, group_id: str) -> bytes | None:
        """The record of a group."""

    @abstractmethod
    def forget_group(self, group_id: str) -> None:
        """Delete the record of a group."""

    # -- chords ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def start_chord(self, group_id: str, size: int) -> None:
        """Say how many members the chord has.  Members may have been counted before."""

    @abstractmethod
    def grow_chord(self, group_id: str, more: int) -> None:
        """Add members to a chord that is already running."""

    @abstractmethod
    def count_parts(self, parts: Sequence[ChordPart]) -> list[ChordPart]:
        """Count finished members, each once however often it is given; return those that completed their chord.

        The caller that gets a part back owns the chord's callback.  It gets it again when it counts the same part
        again before :meth:`finish_chord` (its process may have died in between); nobody else does, within 10 s.
        """

    @abstractmethod
    def chord_parts(self, group_id: str) -> list[bytes]:
        """The members' payloads, in the order of the header."""

    @abstractmethod
    def finish_chord(self, group_id: str) -> None:
        """The callback is published: drop the count, and remember for a while that this chord is done."""

    # -- the rest --------------------------------------------------------------------------------------------------

    @abstractmethod
    def expire(self, limit: int = 1000) -> int:
        """Delete what has outlived its time, at most ``limit`` records; return how many.  Stores that do so by
        themselves return 0.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up connections.  The object can be used again; it connects anew."""
