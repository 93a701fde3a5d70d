"""Which dead letters are meant."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from celeriac.broker import Broker
from celeriac.compat.dead.letter import DeadLetter, accepted, is_like


@dataclass(frozen=True, slots=True)
class Selection:
    """What dead letters must be like to be meant.  ``None`` and empty: any."""

    task: str | None = None
    """Pattern of the task's name: ``shop.tasks.*``."""
    queue: str | None = None
    reasons: tuple[str, ...] = ()
    error: str | None = None
    """Part of the error's text, in any case of letters."""
    older_than: float | None = None
    """Seconds."""
    newer_than: float | None = None
    """Seconds."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Values of arguments by their names, numbers or paths: ``{"order.id": 7, "0": "a"}``."""

    def matches(self, letter: DeadLetter, now: float, names: tuple[str, ...] = ()) -> bool:
        """Whether this one is meant.

        Args:
            letter: it.
            now: seconds since the epoch.
            names: of its task's parameters, in order, where they are known.
        """
        kept = letter.kept
        age = now - kept.at
        return (
            (self.task is None or fnmatchcase(kept.task, self.task))
            and (self.queue is None or kept.queue == self.queue)
            and (not self.reasons or kept.reason in self.reasons)
            and (self.error is None or self.error.lower() in kept.error.lower())
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
            and all(_has(letter, path, value, names) for path, value in self.arguments.items())
        )


def _has(letter: DeadLetter, path: str, wanted: Any, names: tuple[str, ...]) -> bool:
    try:
        return is_like(letter.argument(path, names), wanted)
    except LookupError:
        return False


EVERYTHING = Selection()


def select(app: Any, broker: Broker, selection: Selection, now: float) -> Iterator[DeadLetter]:
    """The dead letters that are meant, newest first."""
    accept = accepted(app)
    names = _Parameters(app) if selection.arguments else None
    before = None
    while page := broker.dead_letters(broker.dead_page, before):
        for kept in page:
            letter = DeadLetter(kept, accept)
            if selection.matches(letter, now, names.of(kept.task) if names else ()):
                yield letter
        before = page[-1].id


class _Parameters:
    """Names of the parameters of an app's tasks."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, task: str) -> tuple[str, ...]:
        """In order; empty for a task that is not known here."""
        if task not in self._known:
            found = self._app.tasks.get(task)
            self._known[task] = tuple(inspect.signature(found.run).parameters) if found is not None else ()
        return self._known[task]
