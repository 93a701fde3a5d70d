"""The entries of ``beat_schedule``, with what Celeriac lets them say beside what Celery does."""

from __future__ import annotations

import json
from typing import Any

from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

from celeriac.compat.periodic.ticks import Missed, Ticks
from celeriac.errors import ConfigurationError

DEFAULT_GRACE = 60.0
"""Seconds for which a late tick still counts as on time where missed ones are skipped.  Too low, and a busy machine or a change
of leaders (up to 10 s) loses ticks; too high, and what was meant to be skipped runs."""


class Entry(ScheduleEntry):
    """One periodic task.

    ``missed`` (``"merge"``, ``"run"`` or ``"skip"``) says what becomes of ticks that no scheduler was there for, and ``overlap``
    whether the task may be sent while its last run has not ended.  Stock Celery does not know the two keys: while it still runs
    such a schedule they go into ``celeriac_beat = {"entry's name": {"missed": …, "overlap": …}}``.
    """

    missed = Missed.MERGE
    overlap = True
    origin = "configured"

    def __init__(self, *args: Any, missed: Any = None, overlap: bool | None = None, **kwargs: Any) -> None:
        """As Celery's; raises ``ConfigurationError`` for a word that there is not."""
        super().__init__(*args, **kwargs)
        own = (self.app.conf.get("celeriac_beat") or {}).get(self.name) or {} if self.app is not None else {}
        self.missed = missed_policy(self.name, missed or own.get("missed") or self._default_missed())
        self.overlap = bool(overlap if overlap is not None else own.get("overlap", True))

    def _default_missed(self) -> Any:
        return self.app.conf.get("celeriac_beat_missed") if self.app is not None else None

    def ticks(self) -> Ticks:
        """The entry's ticks."""
        conf = self.app.conf
        grace = conf.get("celeriac_beat_grace")
        return Ticks(
            self.schedule, self.app.timezone, missed=self.missed, grace=DEFAULT_GRACE if grace is None else float(grace),
            deadline=conf.get("beat_cron_starting_deadline"),
        )  # fmt: skip

    def update(self, other: Any) -> None:
        """Take over what can be edited."""
        super().update(other)
        self.missed, self.overlap = other.missed, other.overlap

    def edited(self, changes: dict[str, Any]) -> Entry:
        """The entry as somebody changed it with ``celeriac schedule edit``."""
        if not changes:
            return self
        made = Entry(
            name=self.name, task=self.task, app=self.app, options={**self.options, **changes.get("options", {})},
            schedule=parse_schedule(changes["schedule"], self.app) if "schedule" in changes else self.schedule,
            args=changes.get("args", self.args), kwargs=changes.get("kwargs", self.kwargs),
            missed=changes.get("missed", self.missed), overlap=changes.get("overlap", self.overlap),
        )  # fmt: skip
        made.origin = "edited"
        return made


def missed_policy(name: str | None, word: Any) -> Missed:
    """The policy that a word means.  Raises ``ConfigurationError``."""
    try:
        return Missed(word or Missed.MERGE)
    except ValueError:
        known = ", ".join(repr(each.value) for each in Missed)
        raise ConfigurationError(f"Periodic task {name!r}: missed is one of {known}, not {word!r}") from None


def parse_schedule(text: str, app: Any) -> Any:
    """A schedule as it is typed: seconds (``"30"``), or the five fields of a crontab (``"*/5 8-18 * * mon-fri"``).

    Raises:
        ConfigurationError: neither of them.
    """
    try:
        if len(text.split()) == 5:
            return crontab.from_string(text)
        seconds = float(text)
    except Exception as error:
        raise ConfigurationError(
            f"{text!r} is no schedule ({error}): write seconds, for example 30, or a crontab, for example '*/5 * * * *'"
        ) from error
    if not seconds > 0:
        raise ConfigurationError(f"A schedule of {text} seconds would never rest; it must be above 0")
    return schedule(seconds, app=app)


def describe(plan: Any) -> str:
    """A schedule in a few words."""
    if isinstance(plan, crontab):
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return " ".join(str(getattr(plan, f"_orig_{field}")) for field in fields)
    return f"every {plan.human_seconds}" if isinstance(plan, schedule) else str(plan)


def arguments_text(args: Any, kwargs: Any) -> str:
    """Arguments in one line."""
    return json.dumps([list(args or ()), dict(kwargs or {})], default=str)
