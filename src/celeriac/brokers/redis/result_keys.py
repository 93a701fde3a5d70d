"""Names and lifetimes of the keys of Celery's Redis result store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celeriac.outcome import Result


@dataclass(frozen=True, slots=True)
class ResultKeys:
    """Where results lie and how long.  Times are whole seconds; 0 means for ever."""

    address: tuple[Any, ...]
    """Host, port and socket path of the server."""
    database: int = 0
    prefix: str = ""
    """Celery's ``global_keyprefix`` of the result store."""
    ttl: int = 86_400
    """``result_expires``."""
    failure_ttl: int | None = None
    """``result_failure_expires``; ``None``: as :attr:`ttl`."""
    chord_ttl: int = 86_400
    chord_ordered: bool = True
    """Keep a chord's results in the order of its header (``result_chord_ordered``)."""
    claim_ttl: int = 10
    """How long a chord's callback is one worker's to publish before another may."""
    done_ttl: int = 300
    """How long a finished chord is remembered, so that a late duplicate does not start it again."""

    def task_key(self, task_id: str) -> str:
        """The key of a task's result."""
        return f"{self.prefix}celery-task-meta-{task_id}"

    def group_key(self, group_id: str) -> str:
        """The key of a group's record; a chord's keys are this with a suffix."""
        return f"{self.prefix}celery-taskset-meta-{group_id}"

    def ttl_of(self, result: Result) -> int:
        """How long to keep one result."""
        return self.failure_ttl if self.failure_ttl is not None and result.state == "FAILURE" else self.ttl

    @property
    def group_ttl(self) -> int:
        """How long to keep a group's record: users read it too, so not shorter than results."""
        return max(self.chord_ttl, self.ttl) if self.chord_ttl and self.ttl else 0
