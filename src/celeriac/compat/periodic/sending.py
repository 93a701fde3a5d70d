"""Sends the task of a tick once, however many schedulers try."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from celery.beat import _evaluate_entry_args, _evaluate_entry_kwargs

from celeriac.compat import connect
from celeriac.compat.collect import Collector, collecting
from celeriac.compat.periodic import copies
from celeriac.compat.periodic.entries import Entry
from celeriac.compat.periodic.state import EntryState
from celeriac.keyvalue import ABSENT, Change, Claim, KeyValueStore, Namespace
from celeriac.message import Message

TICKS = Namespace("ticks")

CLAIM_SECONDS = 7 * 86_400.0
"""How long a tick is remembered as sent.  Only a scheduler that slept for longer between two of its steps could send it again."""

SENDING_SECONDS = 15.0
"""How long a tick is left to the scheduler that is about to send it.  Too low, and a slow broker has it sent twice, which workers of
ours notice (:mod:`celeriac.compat.periodic.copies`); too high, and a tick whose scheduler died in that very moment is late.
"""


class TickTaken(Exception):
    """Another scheduler is about to send this tick."""


SENDING, SENT = b"sending", b"sent"

_IDS = uuid.UUID("1f8e4a52-6f6c-5f0e-9c0b-0d6d1b5a7c11")


class TickSender:
    """Sends ticks of one app's entries."""

    def __init__(self, app: Any, store: KeyValueStore) -> None:
        self._app = app
        self._store = store

    def send(self, entry: Entry, state: EntryState, tick: float) -> str | None:
        """Send a tick's task; return its id, or ``None`` when another scheduler has sent this tick.

        The tick is named by the one before it, which all schedulers agree on, and so is the task's id.

        Raises:
            TickTaken: another scheduler is about to send it; whether it did is known in :data:`SENDING_SECONDS`.
        """
        name = f"{entry.name}@{state.last!r}"
        task_id = entry.options.get("task_id") or str(uuid.uuid5(_IDS, f"{self._app.main}/{name}"))
        broker = connect.producer(self._app)
        if broker.shares_keys(self._store):
            messages = self.messages(entry, task_id, tick)
            if len(messages) == 1:
                claim = Claim(TICKS.name, name, uuid.uuid4().hex, b"", CLAIM_SECONDS)
                return None if broker.publish_claimed(messages, [claim], self._store)[0] else task_id
        return self._send_apart(entry, name, task_id, tick)

    def _send_apart(self, entry: Entry, name: str, task_id: str, tick: float) -> str | None:
        """Where the claim and the message cannot be one write: between the two a scheduler may die, and then the tick is sent late,
        or a second time under its one task id, with a mark of its own.
        """
        _, (found,) = self._store.read(TICKS, [name])
        if found is not None:
            if found.value == SENDING:
                raise TickTaken(name)
            return None
        if not self._store.write(TICKS, name, SENDING, ttl=SENDING_SECONDS, version=ABSENT):
            raise TickTaken(name)
        messages = self.messages(entry, task_id, tick, copies.new_copy(name))
        if messages:
            connect.producer(self._app).publish(messages)
        self._store.update(TICKS, name, lambda _old, _now: Change(None, SENT, ttl=CLAIM_SECONDS))
        return task_id

    def send_now(self, entry: Entry) -> str:
        """Send an entry's task because somebody asked for it, out of turn; return its id."""
        task_id = str(uuid.uuid4())
        messages = self.messages(entry, task_id, None)
        if messages:
            connect.producer(self._app).publish(messages)
        return task_id

    def messages(
        self, entry: Entry, task_id: str, tick: float | None, copy_mark: list[str] | None = None
    ) -> list[Message]:
        """The messages of an entry's task.  Empty when they do not go to one queue: those are sent by making them."""
        options = copy.deepcopy(entry.options)
        headers = options.setdefault("headers", {})
        headers["celery_beat_task"] = True
        if tick is not None:
            headers["celeriac-tick"] = tick
        if copy_mark is not None:
            headers[copies.HEADER] = copy_mark
        options["task_id"] = task_id
        args, kwargs = _evaluate_entry_args(entry.args), _evaluate_entry_kwargs(entry.kwargs)
        task = self._app.tasks.get(entry.task)
        with collecting(Collector()) as collector:
            if task is not None:
                task.apply_async(args, kwargs, **options)
            else:
                self._app.send_task(entry.task, args, kwargs, **options)
        return collector.publish
