"""What the tasks of the oracle write down, in a Redis database of its own: one list per program."""

from __future__ import annotations

import json
import os
from typing import Any

import redis

NOTES_URL = "ORACLE_NOTES"
"""The environment variable that tells a worker where the notes are."""

STORE_URL = "ORACLE_STORE"
"""The one that tells it where its broker is."""

_clients: dict[tuple[int, str], redis.Redis] = {}


def _client(variable: str = NOTES_URL) -> redis.Redis:
    """A connection per process: they must not be carried across a fork."""
    client = _clients.get((os.getpid(), variable))
    if client is None:
        client = _clients[os.getpid(), variable] = redis.Redis.from_url(os.environ[variable])
    return client


def note(tag: str, event: str, label: str, task_id: Any, retries: Any, **details: Any) -> None:
    """Write down that something happened to a task."""
    entry = {"event": event, "label": label, "id": task_id, "retries": retries, **details}
    _client().rpush(f"notes:{tag}", json.dumps(entry, default=describe))


def visits(tag: str, name: str) -> int:
    """How many times this was called with these arguments, this one included."""
    return int(_client().incr(f"visits:{tag}:{name}"))


def stored_state(task_id: str) -> str | None:
    """The state of a task as everybody reads it."""
    record = _client(STORE_URL).get(f"celery-task-meta-{task_id}")
    return str(json.loads(record)["status"]) if record else None


def describe(value: Any) -> Any:
    """A value that JSON does not know, for the notes."""
    if isinstance(value, BaseException):
        return {"exception": type(value).__name__, "text": text_of(value)}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return f"<{type(value).__name__}>"


def text_of(error: Any) -> str:
    """A text of an error or another value, if it has one."""
    try:
        return str(error)
    except Exception:
        return "<none>"
