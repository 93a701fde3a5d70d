"""The sender's part of unique tasks: a message is marked, claims its key, and its result's handle learns whose key it is."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar, Token
from typing import Any

from celery import result
from kombu.serialization import dumps

from celeriac.compat.collect import current_collector
from celeriac.compat.patterns.unique import UniqueOptions, UniquePattern, read_options
from celeriac.errors import NotUnique
from celeriac.keyvalue import Claim, holder_of
from celeriac.policies.unique import HEADER, SPACE, Conflict, Mark, Newest, Until

_MISSING: Any = object()


def options_of(task: Any) -> UniqueOptions | None:
    """A task's options, worked out once; ``None`` for a task that is not unique, or not known here."""
    if task is None:
        return None
    known = type(task).__dict__.get("_celeriac_unique", _MISSING)
    if known is _MISSING:
        known = read_options(task) if UniquePattern().is_used(task) else None
        type(task)._celeriac_unique = known
    return known


class Ticket:
    """One unique message that is being sent."""

    def __init__(self, name: str, task_id: str, claim: Claim, conflict: Conflict) -> None:
        self.name = name
        self.task_id = task_id
        """Of the task that is on its way: this one; or once the broker has answered, the one that was before it."""
        self.claim = claim
        self.results: list[Any] = []
        """Handles that are to follow when the broker answers later than the call returns."""
        self._conflict = conflict

    def sent(self, found: bytes | None) -> NotUnique | None:
        """The broker's answer.  Returns the error that the caller is to get, if any."""
        holder = self.task_id if found is None else holder_of(found)
        if holder == self.task_id:
            return None
        self.task_id = holder
        for handle in self.results:
            handle.id = holder
        return NotUnique(self.name, holder) if self._conflict is Conflict.RAISE else None


def ticket_for(
    task: Any, options: UniqueOptions, message: Any, due: float | None, serializer: str, parent: Any
) -> Ticket | None:
    """Mark a message of Celery's that is about to be sent, and make its ticket.

    There is none for a message that goes on with the running task (its retry), that has no key, or that has to wait for its turn
    in the worker: something else waits for it, or it is part of an outcome.

    Args:
        task: the message's.
        options: the task's.
        message: what ``amqp.create_task_message`` returned.
        due: when it is to run: seconds since the epoch.
        serializer: the name of the message's.
        parent: the task that runs here, if any.

    Raises:
        BrokenKey: the arguments lack what the key needs.
    """
    headers, body = message.headers, message.body
    if parent and parent.request.id == headers["id"]:
        return None
    args, kwargs, embed = body if isinstance(body, tuple) else (body["args"], body["kwargs"], body)
    key = options.key.of(args or (), kwargs or {})
    if key is None:
        return None
    held = options.seconds
    if due is not None and options.until is not Until.WINDOW:
        held += max(0.0, due - time.time())
    late = current_collector() is not None or any(embed.get(name) for name in ("callbacks", "chain", "chord"))
    mark = Mark(f"{task.name}:{key}", options.until, held, late, options.replaces)
    headers[HEADER] = mark.as_header()
    if late:
        return None
    data = b""
    if options.replaces:
        data = Newest(due or 0.0, _encoded(args, kwargs, serializer)).encode()
    claim = Claim(SPACE.name, mark.key, headers["id"], data, held, options.replaces)
    return Ticket(task.name, headers["id"], claim, options.conflict)


def claim_late(headers: dict[str, Any]) -> None:
    """Leave the claim to the worker: this message is not sent by an engine of ours."""
    headers[HEADER]["late"] = True


def _encoded(args: Any, kwargs: Any, serializer: str) -> bytes:
    content_type, encoding, payload = dumps((args, kwargs), serializer)
    head = json.dumps([content_type, encoding]).encode()
    return head + b"\n" + (payload.encode() if isinstance(payload, str) else payload)


# -- groups: Celery makes the handles of their members before it sends them ---------------------------------------------


Aliases = dict[str, str]
"""From the id of a message that was not sent to that of the task that was on its way."""

_last: ContextVar[Aliases | None] = ContextVar("celeriac_aliases", default=None)
_open: ContextVar[list[Any] | None] = ContextVar("celeriac_handles", default=None)


def remember(aliases: Aliases) -> None:
    """What became of the batch that was just sent, for the group that it was."""
    if aliases or _last.get():
        _last.set(aliases or None)


def follow(handles: list[Any], aliases: Aliases) -> None:
    """Make handles those of the tasks that were on their way."""
    for handle in handles:
        handle.id = aliases.get(handle.id, handle.id)


def open_handles() -> Token[list[Any] | None]:
    """A batch begins: groups that are sent in it have their members' handles kept for :func:`close_handles`."""
    return _open.set([])


def close_handles(token: Token[list[Any] | None]) -> list[Any]:
    """The batch is complete; return the handles."""
    handles = _open.get()
    _open.reset(token)
    return handles or []


class GroupResult(result.GroupResult):
    """Celery's handle of a group, whose members are those that were found on their way where they were."""

    def __init__(self, id: Any = None, results: Any = None, parent: Any = None, **kwargs: Any) -> None:
        aliases = _last.get()
        if aliases and results:
            follow(results, aliases)
            _last.set(None)
        handles = _open.get()
        if handles is not None and results:
            handles.extend(results)
        super().__init__(id, results, parent, **kwargs)
