"""What the engine needs from whoever knows what a task is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from celeriac.broker import Broker
from celeriac.message import Delivery
from celeriac.outcome import Outcome, ReadyChord
from celeriac.policies.gate import Gate, Permit
from celeriac.pool import Job


class Fate(str, Enum):
    """What happened to a delivery whose owner is gone."""

    CRASHED = "crashed"
    """Its process died while it ran."""
    SILENT = "silent"
    """Its node went silent: it may have started or not."""
    TIME_LIMIT = "time_limit"
    """Its process was killed because it ran for too long."""
    TERMINATED = "terminated"
    """Its process was killed because the task was revoked with ``terminate``."""
    SHUTDOWN = "shutdown"
    """Its process was killed by a cold shutdown."""


class Runner(Protocol):
    """Decodes, runs and judges tasks.  Its methods turn everything that can go wrong with a task into an outcome."""

    def gate(self, owner: str, broker: Broker, *, sequential: bool) -> Gate | None:
        """What lets limited messages into this process; ``None`` when nothing is limited.  Called before anything is leased.

        Args:
            owner: under which the process leases.
            broker: the process's own.
            sequential: whether it runs one message at a time.
        """

    def prepare(self, delivery: Delivery, permit: Permit | None = None) -> Job | Outcome:
        """Decode a delivery.  What need not run (not due yet, not understood, limited and without a permit) is an outcome at once."""

    body_ended: Callable[[Job], None]
    """To be called when a body has ended, however it did: from then on nothing is raised in it any more.  Set by the consumer."""

    def run(self, job: Job) -> Outcome:
        """Run a task's body in this thread."""

    async def run_async(self, job: Job) -> Outcome:
        """Run a task's coroutine in this thread's event loop."""

    def failed(self, job: Job, error: BaseException) -> Outcome:
        """The outcome of a run that ended in an error outside the body: an interruption that came late, or a bug."""

    def complete_chord(self, chord: ReadyChord, parts: Sequence[bytes]) -> Outcome:
        """The chord's outcome with its callback to publish, in place of its parts."""

    def recover(self, delivery: Delivery, fate: Fate, detail: str) -> Outcome:
        """Decide what becomes of a delivery that may have started in an owner that is gone.

        Raises:
            StoreUnavailable: it cannot be known whether it has ended; ask again later.
        """

    def unsettleable(self, outcome: Outcome, error: Exception) -> Outcome:
        """What to write instead of an outcome that the store refuses for good."""

    def interruption(self, job: Job, reason: str, limit: float) -> BaseException:
        """The exception that a running body is to get: ``reason`` is ``"soft"``, ``"hard"`` or ``"terminate"``."""

    def on_order(self, order: str, *details: Any) -> None:
        """A word from the supervisor's side of the runner to the slot's."""

    def on_fork(self) -> None:
        """Called in the process that is about to fork a slot."""

    def on_slot_start(self, place: int | None) -> None:
        """Called in a slot process before it leases anything.  ``place``: among the node's slots, from 0; ``None`` where the node
        has only one.
        """

    def on_task_fork(self) -> None:
        """Called in a process that a task forked off its slot: when the body comes to its end there, the process must, too."""

    def on_slot_stop(self) -> None:
        """Called in a slot process after it has settled everything."""
