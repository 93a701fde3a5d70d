"""When an entry of the schedule is due: arithmetic over Celery's schedule objects, with the clock as an argument.

A *tick* is a moment that the schedule names.  Moments are seconds since the epoch.
"""

from __future__ import annotations

import copy
import math
from datetime import datetime, tzinfo
from enum import Enum
from typing import Any, NamedTuple

from celery.schedules import crontab, schedule, solar

EXACT = (schedule.is_due, crontab.is_due, solar.is_due)
"""Schedules whose ticks can be worked out from the last one.  Any other only tells whether it is due now."""

MOST_AT_ONCE = 100
"""Ticks sent in one go, so that a scheduler that was away for a month does not fill a queue before it looks up again."""


class Missed(str, Enum):
    """What becomes of ticks that nobody was there for."""

    MERGE = "merge"
    """The task is sent once for all of them (Celery's way)."""
    RUN = "run"
    """It is sent once for each of them."""
    SKIP = "skip"
    """It is not sent; it goes on with the next tick."""


class Due(NamedTuple):
    """What is to be done for one entry."""

    ticks: list[float]
    """Ticks to send the task for, oldest first."""
    last: float
    """Up to where the schedule is worked off once they are sent."""
    wait: float
    """Seconds until the next tick."""


class Ticks:
    """The ticks of one schedule.

    Args:
        plan: one of Celery's schedules, or a custom one.
        zone: the time zone that its fields are in.
        missed: what becomes of missed ticks.
        grace: seconds for which a late tick is still on time for :attr:`Missed.SKIP`.
        deadline: seconds after which a ``crontab``'s missed tick is too old to be sent (Celery's
            ``beat_cron_starting_deadline``); ``None``: never.
    """

    def __init__(
        self, plan: Any, zone: tzinfo, *, missed: Missed = Missed.MERGE, grace: float = 60.0, deadline: float | None = None
    ) -> None:  # fmt: skip
        self._plan = copy.copy(plan)
        self._zone = zone
        self._missed = missed
        self._grace = grace
        self._deadline = deadline if isinstance(plan, crontab) else None
        self._exact = type(plan).is_due in EXACT
        self._period = self._interval(plan)

    @staticmethod
    def _interval(plan: Any) -> float:
        """Seconds between two ticks where that is all there is to know; 0 where it is not."""
        plain = isinstance(plan, schedule) and type(plan).is_due is schedule.is_due and not plan.relative
        return float(plan.run_every.total_seconds()) if plain else 0.0

    def next_after(self, last: float, now: float) -> float:
        """The tick that follows another, to the millisecond: all who work it out come to the same."""
        moment = self._at(now)
        self._plan.nowfun = lambda: moment
        return round(now + float(self._plan.remaining_estimate(self._at(last)).total_seconds()), 3)

    def due(self, last: float, now: float) -> Due:
        """What is due now, when the schedule is worked off up to ``last``."""
        if not self._exact:
            return self._asked(last, now)
        if self._period and last > now + self._period:
            last = now  # the clock was set back; what is counted in elapsed time goes on from here
        first = self.next_after(last, now)
        if first > now:
            return Due([], last, first - now)
        ticks, upcoming = self._passed(first, now)
        sent = self._chosen(ticks, now)
        return Due(sent, ticks[-1], max(0.0, upcoming - now))

    def _asked(self, last: float, now: float) -> Due:
        """A custom schedule says whether it is due, and when to ask again."""
        moment = self._at(now)
        self._plan.nowfun = lambda: moment
        is_due, wait = self._plan.is_due(self._at(last))
        return Due([now], now, float(wait or 0.0)) if is_due else Due([], last, float(wait or 0.0))

    def _passed(self, first: float, now: float) -> tuple[list[float], float]:
        """Ticks from the first missed one until now (the last of them, where only that one matters), and the one after them."""
        if self._missed is not Missed.RUN:
            latest = self._latest(first, now)
            return [latest], self.next_after(latest, now)
        ticks: list[float] = []
        tick = first
        while tick <= now and len(ticks) < MOST_AT_ONCE:
            ticks.append(tick)
            following = self.next_after(tick, now)
            if following <= tick:  # an interval of zero
                return ticks, now
            tick = following
        return ticks, tick

    def _latest(self, first: float, now: float) -> float:
        if self._period > 0:
            return first + math.floor((now - first) / self._period) * self._period
        tick = first
        for _ in range(MOST_AT_ONCE):
            following = self.next_after(tick, now)
            if following > now or following <= tick:
                return tick
            tick = following
        return now  # so many that it does not matter which

    def _chosen(self, ticks: list[float], now: float) -> list[float]:
        if self._deadline is not None:
            ticks = [tick for tick in ticks if now - tick <= self._deadline]
        if self._missed is Missed.SKIP:
            ticks = [tick for tick in ticks if now - tick <= self._grace]
        return ticks

    def _at(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self._zone)
