"""What the broker and the backend share about results and chords before they are in the server's hands."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.outcome import Result

CLAIM_TTL = 10.0
"""Seconds that a chord's callback is left to the task that completed it, before another part's task may take it."""

NO_POSITION = 2**31 - 1
"""Stands for an index that the sender did not give: such parts come after the others."""


def last_of_each(results: Sequence[Result], *, guarded: bool) -> Sequence[Result]:
    """What is left when results are written one after another: no task twice, each with its last word."""
    if len(results) < 2:
        return results
    last: dict[str, Result] = {}
    for result in results:
        before = last.get(result.task_id)
        if not (guarded and before is not None and before.state == "SUCCESS"):
            last[result.task_id] = result
    return list(last.values())


def position(index: int | None) -> int:
    """The place of a part with this index."""
    return NO_POSITION if index is None else index
