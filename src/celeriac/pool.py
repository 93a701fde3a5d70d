"""The contract of a pool: how the jobs that a slot has leased are run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol

from celeriac.message import Delivery
from celeriac.policies.gate import Permit


class Job(Protocol):
    """A decoded delivery that is to be run."""

    delivery: Delivery
    name: str
    """The task's name."""
    is_async: bool
    """Whether the body is a coroutine function."""
    is_late: bool
    """Whether its message is acknowledged when it has run, and not before."""
    soft_limit: float
    """Seconds until the body gets an exception; 0 means never."""
    hard_limit: float
    """Seconds until the process is killed; 0 means never."""
    interrupted: BaseException | None
    """Set when the run is to be interrupted: what its body is to get."""
    permit: Permit | None
    """What lets it run, where limits have a say."""

    def describe(self) -> dict[str, object]:
        """The task for people and monitors: id, name, arguments, …"""


class Work(Protocol):
    """What a pool is given to do.  All methods may be called from any thread."""

    inbox: deque[Job]
    """Unstarted jobs, first come first.  Take with ``popleft()``: the watchdog takes from the other end."""

    def run(self, job: Job, place: int) -> None:
        """Run a job in this thread and put its outcome into the outbox.

        ``place`` tells concurrent runs apart: 0 up to the pool's concurrency, each used by one run at a time.
        """

    async def run_async(self, job: Job, place: int) -> None:
        """The same for a coroutine, in this thread's event loop."""


class Pool(ABC):
    """Runs jobs, one at a time or many."""

    @abstractmethod
    def start(self, work: Work, on_idle: Callable[[], None]) -> None:
        """Get ready.  ``on_idle`` is to be called, from any thread, whenever a run has ended and there is room for more."""

    @abstractmethod
    def drive(self) -> None:
        """Run what is in the inbox: all of it in this thread, or hand it to others and return."""

    @abstractmethod
    def room(self) -> int:
        """How many more jobs could start at once."""

    @abstractmethod
    def stop(self) -> None:
        """End threads and loops.  Nothing runs any more."""
