"""The record of a plain success, written without a detour through Celery's generic code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from celery.result import ResultBase

from celeriac.compat.collected import is_ours
from celeriac.compat.envelope import encode_json
from celeriac.outcome import Result


class PlainRecords:
    """Encodes successes in the format of Celery's key-value stores, where the configuration is the usual one."""

    def __init__(self, app: Any) -> None:
        backend = app.backend
        self._usable = (
            is_ours(backend)
            and backend.serializer == "json"
            and not backend.compression
            and not app.conf.find_value_for_key("extended", "result")
        )
        self._now = _clock(app)

    def encode(self, task_id: str, value: Any, request: Any) -> Result | None:
        """The record, or ``None`` when it takes Celery's own code (or cannot be encoded)."""
        if not self._usable or isinstance(value, ResultBase):
            return None
        own = request.__dict__
        try:
            record = {"status": "SUCCESS", "result": value, "traceback": None}
            children = own.get("_children")
            record["children"] = [child.as_tuple() for child in children] if children else []
            record["date_done"] = self._now()
            if own.get("group"):
                record["group_id"] = own["group"]
            if own.get("parent_id"):
                record["parent_id"] = own["parent_id"]
            record["task_id"] = task_id
            return Result(task_id, "SUCCESS", encode_json(record).encode())
        except (TypeError, ValueError, RecursionError):
            return None


def _clock(app: Any) -> Callable[[], str]:
    """The time in the app's zone, in ISO 8601."""
    if str(app.timezone) == "UTC":
        utc = timezone.utc
        return lambda: datetime.now(utc).isoformat()
    return lambda: str(app.now().isoformat())
