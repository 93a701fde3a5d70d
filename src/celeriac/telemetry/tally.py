"""Adds up task events per task and queue: what slots send to the supervisor, and what the metrics show.

Counting in the slot and merging in the supervisor makes the cost of telemetry independent of the number of tasks
that a packet stands for, and nothing is lost when a packet has to wait.

Label values are bounded, because names come from messages and whoever can send one could invent a million.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Mapping

from celeriac.outcome import State
from celeriac.telemetry.events import (
    BatchSettled,
    Event,
    TaskDeadLettered,
    TaskFinished,
    TaskReceived,
    TaskRescued,
    TaskSent,
    TasksMeasured,
    TaskStarted,
)

COUNTERS = (
    "sent",
    "received",
    "started",
    "succeeded",
    "retried",
    "rejected",
    "revoked",
    "ignored",
    "snoozed",
    "interrupted",
    "rescued",
)
"""What is counted per task and queue.  Failures and dead letters are counted apart, with one more label each."""

RUN_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the run time histogram, in seconds."""

WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the time in queue histogram, in seconds."""

OTHER = "_other"
"""Label value of what came after a cap was reached."""

UNREGISTERED = "_unregistered"
"""Label value of task names that the app does not know."""

_LONGEST_LABEL = 200
_INDEX = {name: index for index, name in enumerate(COUNTERS)}
_SENT, _RECEIVED, _STARTED, _RESCUED = (_INDEX[name] for name in ("sent", "received", "started", "rescued"))
_FAILED = State.FAILED.value
_REJECT = "Reject"
"""Class name of the exception with which a task's body refuses its message."""

_COUNTER_OF_STATE: Mapping[str, int] = {
    State.SUCCEEDED.value: _INDEX["succeeded"],
    State.RETRYING.value: _INDEX["retried"],
    State.REVOKED.value: _INDEX["revoked"],
    State.EXPIRED.value: _INDEX["revoked"],  # Celery reports an expired task as revoked
    State.IGNORED.value: _INDEX["ignored"],
    State.SNOOZED.value: _INDEX["snoozed"],
    State.INTERRUPTED.value: _INDEX["interrupted"],
}


class LabelCap:
    """Lets a bounded number of distinct label values through.

    Args:
        limit: how many.  Too low hides names in ``_other``; too high lets a sender fill memory and Prometheus.
        known: when given, only these pass, and anything else becomes ``unknown``.
        unknown: what stands for a value that is not known, or empty.
    """

    def __init__(self, limit: int, known: Container[str] | None = None, unknown: str = OTHER) -> None:
        self._limit = limit
        self._known = known
        self._unknown = unknown
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value itself, or what stands for it."""
        if value in self._seen:
            return value
        if not value or (self._known is not None and value not in self._known):
            return self._unknown
        if len(self._seen) >= self._limit or len(value) > _LONGEST_LABEL:
            return OTHER
        self._seen.add(value)
        return value


class Histogram:
    """Counts of values by size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Not cumulative; the last one is for values above all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound counts below it, as in Prometheus."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, counts: tuple[int, ...], total: float) -> None:
        """Add another histogram with the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.total += total


class Row:
    """What is known about the tasks of one name in one queue."""

    __slots__ = ("counts", "dead", "failed", "ran", "skews", "waited")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNTERS)
        self.failed: dict[str, int] = {}
        self.dead: dict[str, int] = {}
        self.ran = Histogram(RUN_BUCKETS)
        self.waited = Histogram(WAIT_BUCKETS)
        self.skews = 0

    def wait(self, seconds: float) -> None:
        """Count a time in queue.  A negative one means that clocks disagree; the least wrong value is 0."""
        if seconds < 0:
            self.skews += 1
            seconds = 0.0
        self.waited.observe(seconds)

    def measured(self, task: str, queue: str) -> TasksMeasured:
        """All of it as an event."""
        return TasksMeasured(
            task,
            queue,
            counts=tuple(self.counts),
            failed=tuple(self.failed.items()),
            dead=tuple(self.dead.items()),
            ran_buckets=tuple(self.ran.counts),
            ran_seconds=self.ran.total,
            waited_buckets=tuple(self.waited.counts),
            waited_seconds=self.waited.total,
            skews=self.skews,
        )


class Tally:
    """Sums of task events.  Not thread-safe: its owner locks.

    Args:
        registered: names of the app's tasks; others are counted as ``_unregistered``.  ``None`` lets all names in.
        max_tasks: distinct task names and, apart from that, queue names.
        max_exceptions: distinct names of exception classes, over all tasks.
    """

    def __init__(
        self, registered: Container[str] | None = None, *, max_tasks: int = 1000, max_exceptions: int = 100
    ) -> None:
        self._task = LabelCap(max_tasks, registered, UNREGISTERED)
        self._queue = LabelCap(max_tasks)
        self._exception = LabelCap(max_exceptions)
        self._reason = LabelCap(max_exceptions)
        self._rows: dict[tuple[str, str], Row] = {}
        self.batches = BatchSettled(0, 0, 0, 0.0)

    def add(self, event: Event) -> bool:
        """Add an event up; return False when it is not of a kind that is added up here."""
        handler = _HANDLERS.get(type(event))
        if handler is None:
            return False
        handler(self, event)
        return True

    def rows(self) -> Iterator[tuple[str, str, Row]]:
        """Task, queue and what is known about them."""
        return ((task, queue, row) for (task, queue), row in self._rows.items())

    def drain(self) -> list[Event]:
        """Everything as events, and start again from nothing.  Adding these events to a tally restores the sums."""
        drained: list[Event] = [row.measured(task, queue) for (task, queue), row in self._rows.items()]
        if self.batches.batches:
            drained.append(self.batches)
        self._rows = {}
        self.batches = BatchSettled(0, 0, 0, 0.0)
        return drained

    def _row(self, task: str, queue: str) -> Row:
        row = self._rows.get((task, queue))
        return row if row is not None else self._capped_row(self._task(task), self._queue(queue))

    def _capped_row(self, task: str, queue: str) -> Row:
        row = self._rows.get((task, queue))
        if row is None:
            row = self._rows[task, queue] = Row()
        return row

    def _sent(self, event: TaskSent) -> None:
        self._row(event.task, event.queue).counts[_SENT] += 1

    def _received(self, event: TaskReceived) -> None:
        self._row(event.task, event.queue).counts[_RECEIVED] += 1

    def _rescued(self, event: TaskRescued) -> None:
        self._row(event.task, event.queue).counts[_RESCUED] += 1

    def _started(self, event: TaskStarted) -> None:
        row = self._row(event.task, event.queue)
        row.counts[_STARTED] += 1
        if event.waited_seconds is not None:
            row.wait(event.waited_seconds)

    def _finished(self, event: TaskFinished) -> None:
        row = self._row(event.task, event.queue)
        if event.exception == _REJECT:
            row.counts[_INDEX["rejected"]] += 1
        elif event.state == _FAILED:
            _count(row.failed, self._exception(event.exception))
        else:
            row.counts[_COUNTER_OF_STATE[event.state]] += 1
        if event.ran_seconds is not None:
            row.ran.observe(event.ran_seconds)

    def _dead_lettered(self, event: TaskDeadLettered) -> None:
        _count(self._row(event.task, event.queue).dead, self._reason(event.reason))

    def _measured(self, event: TasksMeasured) -> None:
        row = self._row(event.task, event.queue)
        row.counts = [mine + theirs for mine, theirs in zip(row.counts, event.counts, strict=True)]
        for exception, count in event.failed:
            _count(row.failed, self._exception(exception), count)
        for reason, count in event.dead:
            _count(row.dead, self._reason(reason), count)
        row.ran.merge(event.ran_buckets, event.ran_seconds)
        row.waited.merge(event.waited_buckets, event.waited_seconds)
        row.skews += event.skews

    def _settled(self, event: BatchSettled) -> None:
        before = self.batches
        self.batches = BatchSettled(
            before.batches + event.batches,
            before.outcomes + event.outcomes,
            before.leased + event.leased,
            before.settle_seconds + event.settle_seconds,
        )


def _count(counts: dict[str, int], key: str, more: int = 1) -> None:
    counts[key] = counts.get(key, 0) + more


# Each handler takes the events of its own class; a mapping from class to handler cannot say so.
_HANDLERS: dict[type[Event], Callable[..., None]] = {
    TaskSent: Tally._sent,
    TaskReceived: Tally._received,
    TaskStarted: Tally._started,
    TaskFinished: Tally._finished,
    TaskDeadLettered: Tally._dead_lettered,
    TaskRescued: Tally._rescued,
    TasksMeasured: Tally._measured,
    BatchSettled: Tally._settled,
}
