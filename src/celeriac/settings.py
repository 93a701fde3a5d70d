"""What can be set on the engine: meaning, unit, default, and what goes wrong when it is too low or too high."""

from __future__ import annotations

from dataclasses import dataclass

LEASE_SECONDS = 30.0
"""Unless the app says otherwise."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One worker node.  Times are in seconds."""

    node: str
    """The node's name, as ``name@host``."""
    queues: tuple[str, ...] = ("celery",)
    pool: str = "processes"
    """``processes``, ``threads``, ``asyncio`` or ``solo``."""
    concurrency: int = 1
    """Slots for ``processes``; threads or concurrent tasks of the one slot for the others."""
    autoscale: tuple[int, int] | None = None
    """Fewest and most slots, for ``processes``."""
    prefetch: bool = True
    """Whether a slot may hold unstarted work (``worker_prefetch_multiplier=1`` says no)."""
    prefetch_seconds: float = 0.02
    """How much unstarted work a slot may hold.  Too low costs round trips; too high makes messages wait behind others while
    another slot is idle."""
    patience_seconds: float = 0.025
    """How long unstarted work may wait behind one running task before it is handed back."""
    batch_limit: int = 1000
    """Most messages leased in one call.  Higher keeps the broker busy for longer at a time (about 1 ms per 1,000 on Redis)."""
    lease_seconds: float = LEASE_SECONDS
    """How long a node that went silent keeps its work.  Too low, and a network hiccup makes others run it a second time; too
    high, and the work of a lost node waits."""
    max_crashes: int = 3
    """How many processes a message may kill before it is dead-lettered as poison."""
    dead_max_age: float = 30 * 86_400.0
    """How long a dead letter is kept, at most; 0: until there are too many.  Too low, and failures vanish before anybody saw them;
    too high, and old ones hide what is new."""
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """KiB of resident memory after which a slot is replaced."""
    time_limits: bool = True
    """Whether a task may run into a time limit at all; without, nobody looks."""
    embedded: bool = False
    """Whether tasks run in threads of a process that is not the worker's own, as in the tests of an app: nothing kills it, sends it
    signals or handles those it gets."""
    soft_shutdown_seconds: float = 0.0
    """How long a cold shutdown waits for running tasks first (``worker_soft_shutdown_timeout``)."""

    @property
    def in_process(self) -> bool:
        """Whether tasks run in the supervisor's process."""
        return self.pool == "solo" or (self.embedded and self.pool != "processes")

    @property
    def wait_seconds(self) -> float:
        """Longest single wait for a message or a command, which is how long stopping may take: tests start and stop many workers."""
        return 0.2 if self.embedded else 1.0

    @property
    def beat_seconds(self) -> float:
        """Time between two beats: three may be missed."""
        return self.lease_seconds / 4

    @property
    def beat_ttl(self) -> float:
        """How long one beat keeps an owner alive: less than its lease by the time until another node looks for the silent."""
        return self.lease_seconds - self.beat_seconds / 2

    @property
    def slots(self) -> int:
        """Slot processes to start with."""
        if self.pool != "processes":
            return 1
        return self.autoscale[0] if self.autoscale else self.concurrency

    @property
    def slot_concurrency(self) -> int:
        """Tasks that run at once in one slot."""
        return 1 if self.pool in ("processes", "solo") else self.concurrency
