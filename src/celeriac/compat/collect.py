"""Collects what Celery's code writes while an outcome is being made, so that it can be written at once.

While a collector is open in a thread (or in a coroutine), messages that Celery's canvas sends and results that it stores do
not go anywhere: they become part of the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from celeriac.message import Message
from celeriac.outcome import ChordPart, Outcome, Result


class Collector:
    """What an outcome is going to write."""

    __slots__ = ("chord_parts", "only", "publish", "results")

    def __init__(self, *, only: bool = False) -> None:
        """``only``: nothing may be sent in another way either."""
        self.only = only
        self.results: list[Result] = []
        self.publish: list[Message] = []
        self.chord_parts: list[ChordPart] = []


_current: ContextVar[Collector | None] = ContextVar("celeriac_collector", default=None)

current_collector = _current.get


@contextmanager
def collecting(collector: Collector) -> Iterator[Collector]:
    """Open a collector."""
    token = _current.set(collector)
    try:
        yield collector
    finally:
        _current.reset(token)


def collected_outcome(outcome: Outcome, collector: Collector) -> Outcome:
    """An outcome with what was collected for it."""
    return outcome._replace(
        results=outcome.results + tuple(collector.results),
        publish=outcome.publish + tuple(collector.publish),
        chord_parts=outcome.chord_parts + tuple(collector.chord_parts),
    )
