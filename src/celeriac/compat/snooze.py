"""``raise celeriac.Snooze(60)``: run later, without an attempt being counted."""

from __future__ import annotations

from datetime import timedelta

from celery.exceptions import Ignore

from celeriac.errors import CeleriacError


class Snooze(CeleriacError, Ignore):
    """Raised by a task's body: the same message runs again later, with as many retries before it as now.

    It is one of Celery's ``Ignore`` exceptions, so that ``autoretry_for=(Exception,)`` lets it through.  A stock Celery worker knows
    it as such only, and would drop the message: do not use it in a queue that both serve.

    Args:
        seconds: until then, at least 0; or a ``timedelta``.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self.seconds = max(0.0, length)
        super().__init__(self.seconds)

    def __str__(self) -> str:
        return f"run again in {self.seconds:g} s"
