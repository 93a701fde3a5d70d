"""Looks for dead letters and acts on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from celery.utils.time import rate as per_second

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.dead.letter import DeadLetter, accepted
from celeriac.compat.dead.renewing import Edit, as_document, edited, moment, renewed
from celeriac.compat.dead.selection import EVERYTHING, Selection, select

Found = list[DeadLetter]


class Acted(NamedTuple):
    """What became of the dead letters that were meant."""

    done: list[str]
    """Ids."""
    missing: list[str]
    """Ids of those that are not there any more: somebody else was first."""


class DeadLetters:
    """The dead letters of one app.

    ``replay`` and ``discard`` take ids, or conditions as :meth:`list` has them, or ``everything=True``.  Every method may raise
    :class:`~celeriac.errors.StoreUnavailable`.

    Args:
        app: any Celery app with a broker that Celeriac has an engine for.
        broker: its broker, where the caller has one; else that of this process is used.
        sleep: how to wait, for replaying at a rate.
    """

    def __init__(self, app: Any, broker: Broker | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._app = app
        self._given = broker
        self._sleep = sleep

    @property
    def _broker(self) -> Broker:
        return connect.producer(self._app) if self._given is None else self._given

    # -- looking ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """How many there are."""
        return self._broker.dead_count()

    def list(self, limit: int | None = None, **conditions: Any) -> Found:
        """Those that are like this, newest first.

        Args:
            limit: at most so many.
            conditions: ``task`` (a pattern: ``"shop.*"``), ``queue``, ``reason`` (one or several), ``error`` (part of its text),
                ``newer_than`` and ``older_than`` (seconds ago, or a ``timedelta``), ``arguments`` (values by name, number or path:
                ``{"order.id": 7}``).
        """
        return list(islice(self.select(_selection(conditions)), limit))

    def select(self, selection: Selection) -> Iterator[DeadLetter]:
        """Those that are meant, newest first, a page at a time."""
        return select(self._app, self._broker, selection, time.time())

    def get(self, id: str) -> DeadLetter:
        """One of them.  Raises ``LookupError`` when it is not there."""
        kept = self._broker.dead_letter(id)
        if kept is None:
            raise LookupError(f"there is no dead letter {id}")
        return DeadLetter(kept, accepted(self._app))

    def document(self, id: str) -> dict[str, Any]:
        """What there is to edit: task, args, kwargs, queue and eta.

        Raises:
            LookupError: it is not there.
            CannotEdit: its message cannot be read.
        """
        letter = self.get(id)
        return as_document(letter.kept.queue, letter.kept.raw, letter.accept)

    # -- acting ----------------------------------------------------------------------------------------------------

    def replay(self, *ids: str, rate: float | str | None = None, everything: bool = False, **conditions: Any) -> Acted:
        """Send dead letters again, the oldest first, each with a fresh start: no retries or crashes behind it.

        Moving one back is atomic: replayed twice, or by two at once, it is sent once.

        Args:
            ids: of some of them.
            rate: at most so many a second, or as Celery writes rates: ``"10/s"``, ``"100/m"``.
            everything: all of them.
            conditions: as for :meth:`list`.
        """
        return self.replay_all(self._meant(ids, conditions, everything=everything), rate)

    def replay_all(self, ids: Sequence[str], rate: float | str | None = None) -> Acted:
        """Replay these, in this order."""
        return self._act(ids, self._replay, rate)

    def _replay(self, id: str) -> bool:
        kept = self._broker.dead_letter(id)
        return kept is not None and self._broker.replay(id, renewed(kept.queue, kept.raw))

    def edit(
        self, id: str, *, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, task: str | None = None,
        queue: str | None = None, eta: datetime | None = None, countdown: float | None = None,
    ) -> bool:  # fmt: skip
        """Send a dead letter again with changes; return False when it is not there any more.

        Args:
            id: of the dead letter.
            args: new positional arguments.
            kwargs: new named arguments, all of them.
            task: name of another task.
            queue: another queue.
            eta: when to run it.
            countdown: in how many seconds to run it.

        Raises:
            CannotEdit: the message cannot be read, or the new arguments cannot be sent.
            InvalidPayload: the new arguments do not fit the task's signature.
        """
        kept = self._broker.dead_letter(id)
        if kept is None:
            return False
        wanted = Edit(
            task,
            None if args is None else [*args],
            None if kwargs is None else dict(kwargs),
            queue,
            moment(eta, countdown),
        )
        return self._broker.replay(id, edited(self._app, kept.queue, kept.raw, wanted))

    @staticmethod
    def check_rate(rate: float | str | None) -> None:
        """Raise ``ValueError`` for what is no rate."""
        _pause(rate)

    def discard(self, *ids: str, everything: bool = False, **conditions: Any) -> Acted:
        """Delete dead letters.  There is no way back.  Arguments as for :meth:`replay`."""
        return self.discard_all(self._meant(ids, conditions, everything=everything))

    def discard_all(self, ids: Sequence[str]) -> Acted:
        """Delete these."""
        return self._act(ids, lambda letter: bool(self._broker.discard([letter])), None)

    def _meant(self, ids: Sequence[str], conditions: Mapping[str, Any], *, everything: bool) -> Sequence[str]:
        """Ids, oldest first.  One of the three ways of choosing must be used, and only one."""
        if (bool(ids), bool(conditions), everything).count(True) != 1:
            raise TypeError("give ids, or conditions such as task= and reason=, or everything=True")
        if ids:
            return [*dict.fromkeys(ids)]
        chosen = EVERYTHING if everything else _selection(conditions)
        return [letter.kept.id for letter in self.select(chosen)][::-1]

    def _act(self, ids: Sequence[str], act: Callable[[str], bool], rate: float | str | None) -> Acted:
        pause = _pause(rate)
        acted = Acted([], [])
        due = time.monotonic()
        for id in ids:
            self._sleep(max(0.0, due - time.monotonic()))
            (acted.done if act(id) else acted.missing).append(id)
            due = max(due + pause, time.monotonic() - pause)
        return acted


def _pause(rate: float | str | None) -> float:
    """Seconds between two.  Raises ``ValueError`` for what is no rate."""
    if rate is None:
        return 0.0
    try:
        wanted = float(per_second(rate))
    except (KeyError, TypeError, ValueError):
        wanted = 0.0
    if wanted <= 0:
        raise ValueError(f"{rate!r} is no rate; write for example 10/s or 100/m")
    return 1 / wanted


def _selection(conditions: Mapping[str, Any]) -> Selection:
    given = dict(conditions)
    reason = given.pop("reason", None)
    if reason is not None:
        given["reasons"] = tuple(
            getattr(each, "value", each) for each in ([reason] if isinstance(reason, str) else reason)
        )
    for name in ("older_than", "newer_than"):
        if isinstance(given.get(name), timedelta):
            given[name] = given[name].total_seconds()
    return Selection(**given)
