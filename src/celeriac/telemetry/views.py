"""What a worker looks like at one moment: the values behind gauges, as events are behind counters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from celeriac.broker import Broker, Depth

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot's process."""

    pid: int
    active: int
    """Tasks that are running in it."""
    prefetched: int
    """Messages that it holds unstarted."""
    started_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as its supervisor knows it, without asking anybody."""

    worker: str
    """Its name, as Celery has it: ``celery@host``."""
    concurrency: int
    """How many tasks it can run at once."""
    slots: tuple[SlotView, ...]
    queues: tuple[str, ...]
    """Names of the queues that it serves."""
    heartbeat_at: float | None
    """When it last kept its owners alive in the broker: seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """What lies in the broker."""

    queues: tuple[Depth, ...]
    leased: int
    """Messages leased by all owners of the store."""
    dead: int
    """Dead letters kept."""
    breakers: tuple[tuple[str, str], ...] = ()
    """Names of circuit breakers, and whether each is ``closed``, ``open`` or ``half-open``."""


def look_at_store(broker: Broker, queues: Sequence[str]) -> StoreView:
    """Ask the broker, in three calls.  Raises :class:`~celeriac.errors.StoreError`."""
    return StoreView(tuple(broker.depth(queues)), broker.leased_count(), broker.dead_count())


@dataclass(frozen=True, slots=True)
class Reading:
    """What a :class:`StoreWatch` can tell."""

    view: StoreView | None
    """The newest known; ``None`` when there is none, or only one that is too old to be shown."""
    ok: bool
    """Whether the store answered now (or within the time for which an answer is reused)."""


class StoreWatch:
    """Looks at the store for those who must not wait long, such as a scrape.

    One thread asks, at most one question is under way, and answers are reused: many scrapers cost as much as one, and
    a store that hangs delays each of them by at most ``patience``.

    Args:
        look: goes to the store; may raise or hang.
        patience: seconds to wait for an answer.  Too low shows a slow store as a failing one; it must stay well below
            the scrape timeout (10 s in Prometheus).
        fresh: seconds for which an answer, or a failure, is reused.
        keep: seconds for which the last answer is still shown while the store does not answer.  Too high steers an
            autoscaler by what was; too low makes gaps at every hiccup.
    """

    def __init__(
        self, look: Callable[[], StoreView], *, patience: float = 2.0, fresh: float = 1.0, keep: float = 60.0
    ) -> None:
        self._look = look
        self._patience, self._fresh, self._keep = patience, fresh, keep
        self._changed = threading.Condition()
        self._asked: float | None = None
        """Monotonic time at which the question under way was asked."""
        self._answered: float | None = None
        self._ok = False
        self._view: StoreView | None = None
        self._view_from = 0.0

    def read(self) -> Reading:
        """What the store holds.  Waits up to ``patience`` seconds; never raises."""
        with self._changed:
            if not self._is_fresh():
                self._ask()
                self._changed.wait_for(lambda: self._asked is None, self._rest_of_patience())
            return self._reading()

    def _is_fresh(self) -> bool:
        return self._answered is not None and time.monotonic() - self._answered <= self._fresh

    def _rest_of_patience(self) -> float:
        """A question that already hangs for longer is not waited for again."""
        asked = self._asked if self._asked is not None else time.monotonic()
        return max(0.0, asked + self._patience - time.monotonic())

    def _reading(self) -> Reading:
        shown = self._view is not None and time.monotonic() - self._view_from <= self._keep
        return Reading(self._view if shown else None, self._ok and self._asked is None)

    def _ask(self) -> None:
        if self._asked is None:
            self._asked = time.monotonic()
            threading.Thread(target=self._answer, name="celeriac-store-watch", daemon=True).start()

    def _answer(self) -> None:
        try:
            view: StoreView | None = self._look()
        except Exception as error:
            # Any error: a driver's own exception must not end as a thread's traceback at each scrape.
            logger.debug("Looking at the store failed: %s", error)
            view = None
        with self._changed:
            self._asked, self._answered, self._ok = None, time.monotonic(), view is not None
            if view is not None:
                self._view, self._view_from = view, self._answered
            self._changed.notify_all()
