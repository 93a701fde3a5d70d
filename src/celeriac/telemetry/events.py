"""The telemetry contract: each step of the state machine, as a plain value with its measures.

Two clocks, two kinds of names: what ends in ``_at`` is wall-clock time, seconds since the epoch; what ends in
``_seconds`` is a duration from a monotonic clock.  The one exception is ``waited_seconds``: it spans two machines, so
it is a difference of wall clocks and may be negative when they disagree.

Events are named tuples and not frozen dataclasses because the engine builds several per task, and a named tuple costs
a third.  Listeners tell them apart by class: two events of different classes with the same values are equal.
All fields are plain strings, numbers, ``None`` or tuples of these, so that a process can hand them to another cheaply.
"""

from __future__ import annotations

from typing import NamedTuple, get_args


class TaskSent(NamedTuple):
    """The broker confirmed a message that this process sent: it is queued, or scheduled when it is due later."""

    task: str
    queue: str
    task_id: str
    due_at: float | None = None
    """When it may run; ``None`` means at once."""


class TaskReceived(NamedTuple):
    """A slot leased a message and understood its envelope."""

    task: str
    queue: str
    task_id: str


class TaskStarted(NamedTuple):
    """A task's body is about to run."""

    task: str
    queue: str
    task_id: str
    started_at: float
    waited_seconds: float | None
    """Time in queue: from when it was sent, or due when that is later.  ``None`` when the message does not tell."""
    attempts: int = 0
    """Retries before this run."""
    crashes: int = 0
    """Processes that died while they ran this message."""


class TaskFinished(NamedTuple):
    """A slot is done with a delivery; what is to be written about it is known but not yet settled."""

    task: str
    queue: str
    task_id: str
    state: str
    """A :class:`~celeriac.outcome.State` value: ``succeeded``, ``retrying``, ``snoozed``, ``failed``, ``revoked``,
    ``expired``, ``ignored`` or ``interrupted``."""
    finished_at: float
    ran_seconds: float | None
    """Run time of the body; ``None`` when it never started."""
    waited_seconds: float | None = None
    """As in :class:`TaskStarted`."""
    attempts: int = 0
    crashes: int = 0
    exception: str = ""
    """Name of the exception's class, without module or text; empty when there was none."""


class TaskDeadLettered(NamedTuple):
    """A message was given up and lies in the dead letters."""

    task: str
    """Empty when the message does not tell."""
    queue: str
    task_id: str
    reason: str
    """A :class:`~celeriac.outcome.DeadReason` value."""
    error: str = ""
    """One line: the exception's type and text."""
    attempts: int = 0
    crashes: int = 0


class TaskRescued(NamedTuple):
    """A message that a dead owner held is back in its queue."""

    task: str
    queue: str
    task_id: str
    owner: str
    """Who held it."""
    crashes: int = 0
    """Processes that died while they ran it, this one included if it had started."""


class TasksMeasured(NamedTuple):
    """What happened to the tasks of one name in one queue since the last such event: many task events added up.

    A slot sends this to the supervisor in place of single task events; see :mod:`celeriac.telemetry.tally`.
    """

    task: str
    queue: str
    counts: tuple[int, ...]
    """How often each of :data:`celeriac.telemetry.tally.COUNTERS` happened, in that order."""
    failed: tuple[tuple[str, int], ...]
    """Failures by name of the exception's class."""
    dead: tuple[tuple[str, int], ...]
    """Dead letters by reason."""
    ran_buckets: tuple[int, ...]
    """Runs in each of :data:`celeriac.telemetry.tally.RUN_BUCKETS` (not cumulative) and in one more above them."""
    ran_seconds: float
    """Sum of the run times."""
    waited_buckets: tuple[int, ...]
    """Starts in each of :data:`celeriac.telemetry.tally.WAIT_BUCKETS` and in one more above them."""
    waited_seconds: float
    """Sum of the times in queue."""
    skews: int
    """Times in queue that were negative, and counted as 0."""


class MessagesReleased(NamedTuple):
    """A slot handed unstarted messages back to the head of their queue."""

    queue: str
    messages: int
    reason: str
    """``slow_task``, ``shutdown``, ``rate_limit``, …"""


class MessagesPromoted(NamedTuple):
    """Scheduled messages became due and were moved to their queues."""

    messages: int


class BatchSettled(NamedTuple):
    """Outcomes were settled, and perhaps the next messages leased, in one round trip (or several, added up)."""

    batches: int
    """Round trips: 1 as the engine emits it."""
    outcomes: int
    leased: int
    settle_seconds: float
    """Time spent in these round trips."""


class LeaseFenced(NamedTuple):
    """Outcomes were refused because their owner no longer held the leases; somebody else has the messages."""

    owner: str
    outcomes: int


class OwnerRescued(NamedTuple):
    """All that a dead owner held is in its place again: back in a queue or among the dead letters."""

    owner: str
    messages: int
    rescue_seconds: float
    """From when the death was noticed until the last message was settled."""


class SlotStarted(NamedTuple):
    """A slot's process is up and about to take work."""

    slot: str
    pid: int


class SlotExited(NamedTuple):
    """A slot's process ended."""

    slot: str
    pid: int
    reason: str
    """``shutdown``, ``scaled_down``, ``max_tasks``, ``max_memory``, ``time_limit``, ``crashed``, ``owner_lost``, …"""
    status: int = 0
    """Exit status; negative is the signal that killed it."""


class BrokerLost(NamedTuple):
    """A process could no longer reach the broker, and keeps trying."""

    url: str
    """Without password."""
    error: str


class BrokerBack(NamedTuple):
    """A process reached the broker again after :class:`BrokerLost`."""

    url: str
    down_seconds: float


class WorkerReady(NamedTuple):
    """The supervisor has started its slots; the worker takes tasks."""

    worker: str
    pid: int
    concurrency: int
    queues: tuple[str, ...]
    startup_seconds: float


class WorkerStopping(NamedTuple):
    """The worker takes no more tasks and is shutting down."""

    worker: str
    mode: str
    """``warm``, ``soft`` or ``cold``."""


class WorkerStopped(NamedTuple):
    """The last slot has gone; the supervisor is about to exit."""

    worker: str
    shutdown_seconds: float


class EventsDropped(NamedTuple):
    """A slot could not hand this many single events to the supervisor, which did not keep up."""

    events: int


Event = (
    TaskSent
    | TaskReceived
    | TaskStarted
    | TaskFinished
    | TaskDeadLettered
    | TaskRescued
    | TasksMeasured
    | MessagesReleased
    | MessagesPromoted
    | BatchSettled
    | LeaseFenced
    | OwnerRescued
    | SlotStarted
    | SlotExited
    | BrokerLost
    | BrokerBack
    | WorkerReady
    | WorkerStopping
    | WorkerStopped
    | EventsDropped
)
"""Any event."""

EVENTS: tuple[type[Event], ...] = get_args(Event)
"""All classes of events."""
