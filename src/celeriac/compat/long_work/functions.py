"""The same for tasks of an app that was written for Celery: functions that mean the task that runs here."""

from __future__ import annotations

from celeriac.compat.long_work.work import Cursor, current_work


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Say how far the running task is.  Raises ``NoTaskHere`` outside of one."""
    current_work().progress(done, total, note)


def cursor() -> Cursor:
    """Where the running task is in its work.  Raises ``NoTaskHere`` outside of one."""
    return current_work().cursor


def is_cancelled() -> bool:
    """Whether somebody has cancelled or revoked the running task.  Raises ``NoTaskHere`` outside of one."""
    return current_work().is_cancelled()


def check_cancelled() -> None:
    """Raise ``Cancelled`` if somebody has.  Raises ``NoTaskHere`` outside of a task."""
    current_work().check_cancelled()
