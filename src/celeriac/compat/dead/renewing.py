"""Messages that are sent again: as they were, with a fresh start, or edited."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from celeriac.compat.dead.letter import arguments_of
from celeriac.compat.envelope import decode, decode_body, encode_json, priority_of
from celeriac.compat.patterns.payload import PLAN, VERSION_HEADER
from celeriac.compat.patterns.retries import STARTED_HEADER
from celeriac.compat.saferepr import quick_repr
from celeriac.errors import CeleriacError
from celeriac.message import CRASHES_HEADER, SENT_HEADER, Message

SPENT = (CRASHES_HEADER, STARTED_HEADER)
"""Headers of what a message has been through."""

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class CannotEdit(CeleriacError):
    """A dead letter whose message cannot be read, or what was to be made of it cannot be sent."""


class Edit(NamedTuple):
    """What is to be changed; ``None``: nothing."""

    task: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    queue: str | None = None
    eta: datetime | None = None


def renewed(queue: str, raw: bytes) -> Message | None:
    """The message with a fresh start: no retries and no crashes behind it, and no expiry that is over.

    ``None`` for what is no envelope of Celery's protocol 2: it can only be sent as it is.
    """
    try:
        envelope = decode(raw)
    except (ValueError, RecursionError):
        return None
    headers = envelope.get("headers")
    if not isinstance(headers, dict) or "task" not in headers:
        return None
    _start_anew(envelope, headers)
    return Message(queue, encode_json(envelope).encode(), priority_of(envelope))


def _start_anew(envelope: dict[str, Any], headers: dict[str, Any]) -> None:
    headers = {name: value for name, value in headers.items() if name not in SPENT}
    if "retries" in headers:
        headers["retries"] = 0
    if headers.get("expires") is not None and _is_over(headers["expires"]):
        headers["expires"] = None
        envelope["properties"].pop("expiration", None)
    headers[SENT_HEADER] = time.time()
    envelope["headers"] = headers
    properties = envelope["properties"]
    info = properties.get("delivery_info")
    if isinstance(info, dict):
        properties["delivery_info"] = {**info, "redelivered": False}


def _is_over(expires: Any) -> bool:
    try:
        moment = datetime.fromisoformat(expires)
    except (TypeError, ValueError):
        return False
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)) <= datetime.now(timezone.utc)


def edited(app: Any, queue: str, raw: bytes, edit: Edit) -> Message:
    """The message with a fresh start and these changes.

    Raises:
        CannotEdit: it cannot be read, or the new arguments cannot be sent.
        InvalidPayload: the new arguments do not fit the task's signature, where it is typed and known here.
    """
    try:
        envelope = decode(raw)
        body = decode_body(envelope, {"application/json", str(envelope.get("content-type"))})
    except (Exception, RecursionError) as error:
        raise CannotEdit(
            f"its message cannot be read ({type(error).__name__}: {error}); replay it as it is or discard it"
        ) from error
    headers = envelope.get("headers")
    if not isinstance(headers, dict) or "task" not in headers or not isinstance(body, (list, tuple)):
        raise CannotEdit("it is no message of Celery's protocol 2; replay it as it is or discard it")
    _start_anew(envelope, headers)
    headers = envelope["headers"]
    if edit.task is not None:
        headers["task"] = edit.task
    if edit.eta is not None:
        moment = edit.eta if edit.eta.tzinfo else edit.eta.astimezone()
        headers["eta"] = moment.astimezone(timezone.utc).isoformat()
    if edit.args is not None or edit.kwargs is not None:
        _put_arguments(app, envelope, headers, body, edit)
    if edit.queue is not None:
        queue = edit.queue
        info = envelope["properties"].get("delivery_info")
        envelope["properties"]["delivery_info"] = {
            **(info if isinstance(info, dict) else {}),
            "exchange": "",
            "routing_key": queue,
        }
    return Message(queue, encode_json(envelope).encode(), priority_of(envelope))


def _put_arguments(app: Any, envelope: dict[str, Any], headers: dict[str, Any], body: Any, edit: Edit) -> None:
    args: Any = body[0] if edit.args is None and len(body) else edit.args or []
    kwargs: Any = body[1] if edit.kwargs is None and len(body) > 1 else edit.kwargs or {}
    payload = getattr(app.tasks.get(headers["task"]), PLAN, None)
    if payload is not None:
        args, kwargs = payload.encode(args, kwargs)
        headers[VERSION_HEADER] = payload.version
    embed = body[2] if len(body) > 2 else EMBED
    try:
        text = encode_json((args, kwargs, embed))
    except (TypeError, ValueError, RecursionError) as error:
        raise CannotEdit(f"the new arguments are no JSON: {error}") from error
    headers.pop("compression", None)
    for name, value in (("argsrepr", tuple(args)), ("kwargsrepr", kwargs)):
        headers[name] = quick_repr(value) or json.dumps(value, default=str)
    envelope.update(
        {"body": b64encode(text.encode()).decode(), "content-type": "application/json", "content-encoding": "utf-8"}
    )
    envelope["properties"]["body_encoding"] = "base64"


def moment(eta: datetime | None, countdown: float | None) -> datetime | None:
    """When an edited message is due."""
    return datetime.now(timezone.utc) + timedelta(seconds=countdown) if countdown is not None else eta


def as_document(queue: str, raw: bytes, accept: frozenset[str]) -> dict[str, Any]:
    """What an editor shows of a message.  Raises ``CannotEdit``."""
    found = arguments_of(raw, accept)
    try:
        headers = decode(raw).get("headers")
    except (ValueError, RecursionError):
        headers = None
    if found is None or not isinstance(headers, dict) or "task" not in headers:
        raise CannotEdit("its message cannot be read; replay it as it is or discard it")
    return {"task": headers["task"], "args": found[0], "kwargs": found[1], "queue": queue, "eta": headers.get("eta")}
