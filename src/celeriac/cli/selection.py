"""Which dead letters are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import click

from celeriac.broker import Broker, DeadMessage
from celeriac.cli.output import Age
from celeriac.outcome import DeadReason

F = TypeVar("F", bound=Callable[..., Any])

PAGE = 50
"""Dead letters read at a time.  Each comes with its message, which may have megabytes."""


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

    def matches(self, letter: DeadMessage, now: float) -> bool:
        """Whether this one is meant.  ``now`` is in seconds since the epoch."""
        age = now - letter.at
        return (
            (self.task is None or fnmatchcase(letter.task, self.task))
            and (self.queue is None or letter.queue == self.queue)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.error is None or self.error.lower() in letter.error.lower())
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


EVERYTHING = Selection()


def select(broker: Broker, selection: Selection, now: float) -> Iterator[DeadMessage]:
    """The dead letters that are meant, newest first."""
    before = None
    while page := broker.dead_letters(PAGE, before):
        yield from (letter for letter in page if selection.matches(letter, now))
        before = page[-1].id


def selection_options(command: F) -> F:
    """Give a command the options that make a :class:`Selection`; its callback gets them by the fields' names."""
    reasons = click.Choice([reason.value for reason in DeadReason])
    options = (
        click.option("--task", "-t", metavar="PATTERN", help="Only this task; * stands for anything."),
        click.option("--queue", "-Q", metavar="NAME", help="Only what came from this queue."),
        click.option("--reason", "-r", "reasons", type=reasons, multiple=True, help="Only these reasons."),
        click.option("--error", "-e", metavar="TEXT", help="Only errors whose text has this in it."),
        click.option("--older-than", type=Age(), help="Only those that died longer ago: 90s, 10m, 2h, 7d."),
        click.option("--newer-than", type=Age(), help="Only those that died since: 90s, 10m, 2h, 7d."),
    )
    for option in reversed(options):
        command = option(command)
    return command
