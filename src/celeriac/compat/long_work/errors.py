"""What long work raises."""

from __future__ import annotations

from celery.exceptions import Terminated

from celeriac.errors import CeleriacError


class Cancelled(Terminated):
    """The task was cancelled (or revoked) while it ran, and asked.  Let it pass: the task ends as ``REVOKED``."""


class CursorLost(CeleriacError):
    """Another run of the same task has taken the cursor over: this one was given up for dead.  It must not go on."""


class NoTaskHere(CeleriacError):
    """There is no running task here whose progress, cursor or cancellation could be meant."""
