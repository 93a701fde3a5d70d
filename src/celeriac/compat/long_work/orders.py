"""Cancellations and revocations as they are kept: a log in the key-value store, which every worker reads to its end and goes on reading.

An entry is written before the head says that it is there, so that a reader never passes over one that is only late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from celeriac.keyvalue import ABSENT, Change, KeyValueStore, Namespace

ENTRIES = Namespace("cancellations")
HEADS = Namespace("cancellations-head")
HEAD = "head"

KEPT_SECONDS = 7 * 86_400.0
"""How long a cancellation holds.  Too short, and a message that waits for longer runs all the same; too long, and each worker reads
and remembers more (some 100 bytes each)."""

PAGE = 200
"""Entries read in one round trip."""

GRACE_SECONDS = 10.0
"""How long a running task has to stop by itself, and how long once the exception was raised in it."""


class CancelOrder(NamedTuple):
    """That tasks are not to run, or not to go on."""

    task_ids: tuple[str, ...]
    stop: bool = False
    """Whether running ones are to end, too."""
    grace: float = GRACE_SECONDS
    """Seconds that a running task has to notice by itself; then it gets an exception, and after as long again it is killed."""
    at: float = 0.0
    """When it was given: seconds since the epoch, by the store's clock."""


class CancelLog:
    """The log of one store."""

    def __init__(self, store: KeyValueStore, kept: float = KEPT_SECONDS) -> None:
        self._store = store
        self._kept = kept

    def append(self, order: CancelOrder) -> int:
        """Add an order; return its number."""
        now, number = self._head()
        raw = json.dumps(order._replace(at=now)).encode()
        while not self._store.write(ENTRIES, str(number), raw, ttl=self._kept, version=ABSENT):
            self._advance(number + 1)  # whoever wrote it may have died before doing so
            number = max(number + 1, self._head()[1])
        self._advance(number + 1)
        return number

    def _head(self) -> tuple[float, int]:
        now, (entry,) = self._store.read(HEADS, [HEAD])
        return now, json.loads(entry.value)["next"] if entry else 0

    def _advance(self, following: int) -> None:
        def change(old: bytes | None, _now: float) -> Change[None]:
            head: dict[str, Any] = json.loads(old) if old else {"first": 0, "next": 0}
            head["next"] = max(head["next"], following)
            return Change(None, json.dumps(head).encode())

        self._store.update(HEADS, HEAD, change)

    def read(self, since: int | None = None) -> tuple[int, list[CancelOrder]]:
        """Orders from a number on (``None``: all that are kept), and the number to read on from.  One round trip when there is
        nothing new.
        """
        _, (entry,) = self._store.read(HEADS, [HEAD])
        head: dict[str, Any] = json.loads(entry.value) if entry else {"first": 0, "next": 0}
        start = head["first"] if since is None else max(since, head["first"])
        found: list[CancelOrder] = []
        gone = 0
        for page in range(start, head["next"], PAGE):
            names = [str(number) for number in range(page, min(page + PAGE, head["next"]))]
            orders = self._orders(names)
            gone += len(names) if not orders and gone == page - start else 0
            found += orders
        if since is None and gone:
            self._drop(start + gone)
        return head["next"], found

    def _orders(self, names: Sequence[str]) -> list[CancelOrder]:
        _, entries = self._store.read(ENTRIES, names)
        orders = (json.loads(entry.value) for entry in entries if entry)
        return [CancelOrder(tuple(ids), *rest) for ids, *rest in orders]

    def _drop(self, first: int) -> None:
        """Entries before this one have outlived their time: nobody need look for them again."""

        def change(old: bytes | None, _now: float) -> Change[None]:
            head: dict[str, Any] = json.loads(old) if old else {"first": 0, "next": 0}
            head["first"] = max(head["first"], min(first, head["next"]))
            return Change(None, json.dumps(head).encode())

        self._store.update(HEADS, HEAD, change)
