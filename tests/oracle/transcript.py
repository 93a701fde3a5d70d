"""A transcript: what can be seen of a program that has run, without what is different each time."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis
from celery.result import AsyncResult, EagerResult, GroupResult

from tests.oracle.notebook import text_of

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)?")
_NUMBER = re.compile(r" at 0x[0-9a-f]+| Job: \d+")
_FRAME = re.compile(r'File "[^"]*/tests/oracle/[^"]*", line \d+, in (\w+)')
_NUMBERED = re.compile(r"<([a-z]+)\d+>")
_ANCESTORS = {"parent", "root", "parent_id", "root_id"}

VARIES = {"celeriac-sent", "delivery_tag", "origin", "body_encoding", "pid", "_protected", "followed"}
"""Parts of a request or a record that are different for each message, process or sender."""

META_PREFIX = b"celery-task-meta-"


@dataclass
class Transcript:
    """What a program did."""

    events: dict[str, list[Any]] = field(default_factory=dict)
    """What its tasks wrote down: for each task and attempt, in order."""
    requests: dict[str, Any] = field(default_factory=dict)
    """The request context that they saw, where they were told to look."""
    results: Any = None
    """What its sender reads from the handles that it got."""
    records: dict[str, Any] = field(default_factory=dict)
    """What lies in the result store, by task."""

    def differences(self, other: Transcript) -> list[str]:
        """Where another one differs, one line each."""
        return list(_differences("", asdict(self), asdict(other)))


def transcribe(app: Any, lines: Sequence[bytes], store: redis.Redis, tag: str, result: Any) -> Transcript:
    """The transcript of a program from its tasks' notes, the result store and the handles that its sender got."""
    notes = [json.loads(line) for line in lines]
    names = _Names(tag, notes)
    made = Transcript()
    for each in sorted(notes, key=lambda each: str(each["label"])):
        key = f"{each.pop('label')}/{each.pop('retries')}"
        if each["event"] == "request":
            seen = names.clean(each["request"])
            # A stock worker shows our header with the time of sending among the custom ones.
            made.requests[key] = {**seen, "headers": seen["headers"] or None}
        else:
            made.events.setdefault(key, []).append(names.clean(each))
    made.events = {key: _in_order(events) for key, events in made.events.items()}
    made.results = names.clean(_handles(result))
    for task_id, name in sorted(names.known.items(), key=lambda item: item[1]):
        raw = store.get(META_PREFIX + task_id.encode())
        made.records[name] = names.clean(_record(json.loads(raw))) if raw is not None else None
    return made


def _in_order(events: list[Any]) -> list[Any]:
    """Events of one attempt in the order that counts.

    Stock workers announce two things from other processes than the task's, at any time: that it was published (a retry may be
    received before that is said), and the failure of a rejected task.
    """
    rejected = any(each.get("state") == "REJECTED" for each in events)

    def rank(event: dict[str, Any]) -> int:
        if event["event"].endswith("_task_publish"):
            return 0
        return 2 if rejected and event["event"] == "task_failure" else 1

    return sorted(events, key=rank)


class _Names:
    """Gives ids names that are the same each time: the label of the task, or a number."""

    def __init__(self, tag: str, notes: list[dict[str, Any]]) -> None:
        self._tag = tag
        self.known = {each["id"]: str(each["label"]) for each in notes if each["event"] not in _ABOUT_OTHERS}
        self._others: dict[str, str] = {}

    def clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.clean(key): self._clean_item(key, item) for key, item in value.items() if key not in VARIES}
        if isinstance(value, (list, tuple)):
            return [self.clean(item) for item in value]
        if isinstance(value, str):
            text = _UUID.sub(self._name, value.replace(self._tag, "TAG"))
            return _NUMBER.sub(" NUMBER", _TIME.sub("TIME", text))
        return round(value, 3) if isinstance(value, float) else value

    def _clean_item(self, key: str, item: Any) -> Any:
        """Which member of a header comes last, and so is the parent of what follows, is chance."""
        cleaned = self.clean(item)
        return _NUMBERED.sub(r"<\1#>", cleaned) if key in _ANCESTORS and isinstance(cleaned, str) else cleaned

    def _name(self, match: re.Match[str]) -> str:
        found = match[0]
        name = self.known.get(found) or self._others.setdefault(found, f"id {len(self._others)}")
        return f"<{name}>"


_ABOUT_OTHERS = {"errback", "old_errback"}
"""Notes of tasks that have no label of their own for the id they write down."""


def _handles(result: Any, seen: frozenset[str] = frozenset()) -> Any:
    """Handles with all that hangs on them.  A task that was retried is its own child, so the way back is cut."""
    if isinstance(result, (list, tuple)):
        return [_handles(each, seen) for each in result]
    if isinstance(result, (AsyncResult, EagerResult, GroupResult)):
        if result.id in seen:
            return {"again": result.id}
        seen |= {result.id}
        return _group(result, seen) if isinstance(result, GroupResult) else _handle(result, seen)
    return _plain(result)


def _group(result: GroupResult, seen: frozenset[str]) -> dict[str, Any]:
    members = [_handles(each, seen) for each in result.results]
    return {"group": result.id, "members": members, "parent": _handles(result.parent, seen)}


def _handle(result: Any, seen: frozenset[str]) -> dict[str, Any]:
    children = [_handles(child, seen) for child in result.children or ()]
    return {
        "id": result.id,
        "state": result.state,
        "value": _plain(result.result),
        "traceback": traceback_of(result.traceback),
        "ready": [result.ready(), result.successful(), result.failed()],
        "children": sorted(children, key=_without_ids),
        "parent": _handles(result.parent, seen),
    }


def _without_ids(value: Any) -> str:
    return _UUID.sub("", json.dumps(value, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"exception": type(value).__name__, "text": text_of(value), "cause": _plain(value.__cause__)}
    if isinstance(value, (AsyncResult, GroupResult)):
        return {"handle": value.id}
    return value


def traceback_of(text: Any) -> Any:
    """A traceback as far as it is the app's: its functions, and the error."""
    if not isinstance(text, str):
        return text
    last = text.strip().rpartition("\n")[2]
    frames = _FRAME.findall(text)
    return [*(frames if len(frames) < 20 else ["recursion"]), last]


def _record(meta: dict[str, Any]) -> dict[str, Any]:
    children = sorted((json.dumps(child) for child in meta.get("children") or ()), key=_without_ids)
    return {**meta, "traceback": traceback_of(meta.get("traceback")), "children": children}


def _differences(path: str, one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            yield from _differences(f"{path}.{key}", one.get(key, "<absent>"), other.get(key, "<absent>"))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{path}[{place}]", left, right)
    elif isinstance(one, list) and isinstance(other, list):
        lines = difflib.ndiff([json.dumps(each) for each in one], [json.dumps(each) for each in other])
        yield from (f"{path}: {line}" for line in lines if line[0] in "+-")
    elif one != other:
        yield f"{path}: {one!r} is {other!r}"
