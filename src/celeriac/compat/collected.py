"""What Celery's result stores would write, as values for the open collector."""

from __future__ import annotations

from typing import Any

from celeriac.compat.chords import callback_of
from celeriac.compat.collect import current_collector
from celeriac.outcome import ChordPart, Result


def encode_record(backend: Any, task_id: str, result: Any, state: str, traceback: Any, request: Any) -> Result:
    """A task's record, as Celery's key-value stores keep it."""
    meta = backend._get_result_meta(result=result, state=state, traceback=traceback, request=request)
    meta["task_id"] = task_id
    payload = backend.encode(meta)
    return Result(task_id, state, payload.encode() if isinstance(payload, str) else payload)


def encode_part(backend: Any, request: Any, state: str, result: Any) -> ChordPart | None:
    """A finished member of a chord; ``None`` when the task is in no group, or says so in words that name none."""
    group_id, task_id, index = request.group, request.id, getattr(request, "group_index", None)
    if not group_id or not isinstance(group_id, str) or not task_id:
        return None
    payload = backend.encode([1, task_id, state, backend.encode_result(result, state)])
    return ChordPart(
        group_id,
        task_id,
        index if type(index) is int else None,
        payload.encode() if isinstance(payload, str) else payload,
        callback_of(request.chord),
    )


def collected(backend: Any, task_id: str, result: Any, state: str, traceback: Any, request: Any) -> bool:
    """Add a record to the open collector; return False when there is none."""
    collector = current_collector()
    if collector is None:
        return False
    collector.results.append(encode_record(backend, task_id, result, state, traceback, request))
    return True


def collected_part(backend: Any, request: Any, state: str, result: Any) -> bool:
    """Add a chord's part to the open collector; return False when there is none."""
    collector = current_collector()
    if collector is None:
        return False
    part = encode_part(backend, request, state, result)
    if part is not None:
        collector.chord_parts.append(part)
    return True


def is_ours(backend: Any) -> bool:
    """Whether a backend's writes are collected."""
    return bool(getattr(backend, "collects", False))
