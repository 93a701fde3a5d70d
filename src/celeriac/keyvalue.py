r"""The contract of a key-value store: small state that all nodes share, with compare-and-set.

Policies keep their state here: breakers, limits, unique keys, schedules, progress.  Their arithmetic is a pure function of the
old value and the store's clock (:meth:`KeyValueStore.update`), so that it can be tested with a clock of one's own, and nodes
whose clocks differ agree.

A *held* key belongs to a holder: its value is ``<holder>\n<data>``.  It is taken with :meth:`KeyValueStore.claim`, by at most one
of many at once, and given up or filled with :meth:`KeyValueStore.apply` or in a settle (:attr:`celeriac.outcome.Outcome.keys`),
which a holder that lost it does in vain.

A store may be used by several threads; it must not be carried across a fork.  Every method may
raise :class:`~celeriac.errors.StoreUnavailable` or :class:`~celeriac.errors.StoreFull`.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from celeriac.outcome import KeyWrite

T = TypeVar("T")

ABSENT = 0
"""The version of a key that is not there."""

LONGEST_PAUSE = 0.02
"""Seconds between two attempts of an update that others got in the way of.  Each failed attempt means that somebody else's
succeeded, so the whole always advances."""


class Namespace(NamedTuple):
    """What keeps the keys of one purpose apart from those of others."""

    name: str
    listed: bool = False
    """Whether :meth:`KeyValueStore.names` works.  For at most some thousand keys: on Redis their names are kept in one set."""


class Entry(NamedTuple):
    """A key's value."""

    value: bytes
    version: int
    """Positive, and another one after each write, for ever."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What an update makes of a key."""

    answer: T
    """What the update returns."""
    value: bytes | None = None
    """The new value; ``None`` deletes the key."""
    ttl: float | None = None
    """Seconds until the key goes by itself; ``None``: never."""
    keep: bool = False
    """Leave the key as it is; ``value`` and ``ttl`` mean nothing then."""


class Claim(NamedTuple):
    """A wish for a held key."""

    space: str
    """Name of the key's namespace, which is not a listed one."""
    name: str
    holder: str
    """Without line breaks."""
    data: bytes
    ttl: float
    """Seconds until the key goes by itself."""
    replace: bool = False
    """Where somebody holds the key: give it these data and this time to live, and leave it theirs."""

    @property
    def value(self) -> bytes:
        """The key's value once it is held."""
        return held_value(self.holder, self.data)

    def over(self, value: bytes) -> bytes:
        """What a value that is there becomes."""
        return held_value(holder_of(value), self.data) if self.replace else value


def held_value(holder: str, data: bytes) -> bytes:
    """The value of a held key."""
    return holder.encode() + b"\n" + data


def holder_of(value: bytes) -> str:
    """Who holds a key with this value."""
    return value.partition(b"\n")[0].decode("utf-8", "replace")


def data_of(value: bytes) -> bytes:
    """What is in a held key."""
    return value.partition(b"\n")[2]


class KeyValueStore(ABC):
    """Keys and values in one store."""

    url: str
    """Where it is, without password; for people to read."""

    round_trips: int
    """How many times this object has gone to the store and waited for the answer."""

    @abstractmethod
    def read(self, space: Namespace, names: Sequence[str]) -> tuple[float, list[Entry | None]]:
        """The store's time (seconds since the epoch) and the entries, in the order asked; ``None`` where there is none.

        One round trip.
        """

    @abstractmethod
    def write(self, space: Namespace, name: str, value: bytes | None, *, ttl: float | None, version: int) -> int:
        """Write a key if it still has this version (:data:`ABSENT`: is not there).

        One round trip.  ``value`` and ``ttl`` as in :class:`Change`.

        Returns:
            The version that it has now; 0: somebody else had written it, and nothing happened.  After a deletion any other number.
        """

    def update(self, space: Namespace, name: str, change: Callable[[bytes | None, float], Change[T]]) -> T:
        """Change a key atomically; return the change's answer.

        Args:
            space: of the key.
            name: of the key.
            change: a pure function of the old value and the store's time.  It may be called several times.
        """
        pause = LONGEST_PAUSE / 16
        while True:
            now, (entry,) = self.read(space, [name])
            wanted = change(entry.value if entry else None, now)
            version = entry.version if entry else ABSENT
            if wanted.keep or self.write(space, name, wanted.value, ttl=wanted.ttl, version=version):
                return wanted.answer
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    # -- held keys -------------------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> bytes | None:
        """Take a key that nobody holds; return ``None``, or the value of the key that somebody holds (the caller perhaps)."""

        def change(old: bytes | None, _now: float) -> Change[bytes | None]:
            if old is None:
                return Change(None, claim.value, claim.ttl)
            return Change(claim.over(old), claim.over(old), claim.ttl, keep=not claim.replace)

        return self.update(Namespace(claim.space), claim.name, change)

    def apply(self, writes: Sequence[KeyWrite]) -> None:
        """Write the keys that their holders still have."""
        for write in writes:
            self.update(Namespace(write.space), write.name, lambda old, _now, write=write: _applied(old, write))  # type: ignore[misc]

    def renew(self, space: Namespace, name: str, holder: str, ttl: float) -> bool:
        """Give a held key more time; return whether the holder still had it."""

        def change(old: bytes | None, _now: float) -> Change[bool]:
            mine = old is not None and holder_of(old) == holder
            return Change(mine, old, ttl, keep=not mine)

        return self.update(space, name, change)

    @abstractmethod
    def names(self, space: Namespace) -> list[str]:
        """The keys of a listed namespace, sorted."""

    @abstractmethod
    def expire(self, limit: int = 1000) -> int:
        """Delete what has outlived its time, at most ``limit`` keys; return how many.  Stores that do so by themselves return 0."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections.  The object can be used again; it connects anew."""


def _applied(old: bytes | None, write: KeyWrite) -> Change[None]:
    mine = old is not None and holder_of(old) == write.holder
    return Change(None, write.value, write.ttl, keep=not mine)
