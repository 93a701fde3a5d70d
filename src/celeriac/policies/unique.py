r"""Unique tasks: while one is on its way, an equal one is not sent.

The sender takes the key in the same step that sends the message (:meth:`celeriac.broker.Broker.publish_claimed`), and says so in a
header.  The worker gives it up: when the run starts, or in the settle that ends the task.  A message that could not claim its key
when it was sent, because something else waits for it or because it was sent by an outcome, claims it here, and waits for its turn.

Key: ``<task id>\n<newest>``, where ``newest`` is empty, or the arguments and the time that later calls replaced the message's with.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from celeriac.keyvalue import Change, Claim, KeyValueStore, Namespace, data_of, held_value, holder_of
from celeriac.outcome import KeyWrite, Outcome, State
from celeriac.policy import Call, Policy, Postpone, Verdict

HEADER = "celeriac-unique"
"""Header of a unique task's message: a mapping as :class:`Mark` has it."""

SPACE = Namespace("unique")
ARGUMENTS = Namespace("unique-arguments")
"""By task id, what a started run was given in place of its message's arguments, for when the message comes again."""

TURN_SECONDS = 1.0
"""How long a message waits for its turn before it looks again, give or take a half."""

AGAIN = frozenset({State.SNOOZED, State.INTERRUPTED})
"""The same message comes again."""

UNFINISHED = AGAIN | {State.RETRYING}


class Until(str, Enum):
    """How long a task keeps others like it from being sent."""

    STARTED = "until_started"
    DONE = "until_done"
    WINDOW = "window"
    """For a time that starts when it is sent, whatever comes of it."""


class Conflict(str, Enum):
    """What sending does when an equal task is on its way."""

    EXISTING = "existing"
    """Return the handle of that one."""
    REPLACE = "replace"
    """Give that one the new arguments; it keeps its place."""
    DEBOUNCE = "debounce"
    """Give that one the new arguments, and put it off."""
    RAISE = "raise"


class Mark(NamedTuple):
    """What a message says of its key."""

    key: str
    until: Until
    seconds: float
    """The longest that the key is held."""
    late: bool
    """Whether it is claimed by the worker."""
    replaced: bool = False
    """Whether later calls may have given it other arguments."""

    def as_header(self) -> dict[str, Any]:
        """For the message."""
        return {
            "key": self.key,
            "until": self.until.value,
            "for": self.seconds,
            "late": self.late,
            "replaced": self.replaced,
        }

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Mark | None:
        """From a message; ``None`` when it has none that makes sense."""
        try:
            found = headers[HEADER]
            return cls(
                str(found["key"]),
                Until(found["until"]),
                float(found["for"]),
                bool(found["late"]),
                bool(found.get("replaced")),
            )
        except (KeyError, TypeError, ValueError):
            return None


class Newest(NamedTuple):
    """What later calls made of a message that is on its way."""

    due: float
    """Not before: seconds since the epoch; 0: at once."""
    arguments: bytes
    """Encoded; empty: those of the message."""

    def encode(self) -> bytes:
        """For the key."""
        return json.dumps([self.due, base64.b64encode(self.arguments).decode()]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Newest:
        """From the key."""
        if not data:
            return cls(0.0, b"")
        due, arguments = json.loads(data)
        return cls(float(due), base64.b64decode(arguments))


class Uniqueness(Policy):
    """The worker's part, for one task.

    Args:
        store: opens the key-value store of this process.
        decode: positional and named arguments from :attr:`Newest.arguments`.
    """

    def __init__(
        self, store: Callable[[], KeyValueStore], decode: Callable[[bytes], tuple[list[Any], dict[str, Any]]]
    ) -> None:
        self._store = store
        self._decode = decode

    def enter(self, call: Call) -> Verdict | None:
        """See :class:`Policy`: two round trips for ``until_started``, one for a late claim, else none."""
        mark = Mark.of(call.headers)
        if mark is None:
            return None
        if mark.late:
            found = self._store().claim(Claim(SPACE.name, mark.key, call.task_id, b"", mark.seconds))
            if found is not None and holder_of(found) != call.task_id:
                reason = f"{holder_of(found)} is on its way with the same key, {mark.key}"
                return Postpone(TURN_SECONDS * random.uniform(0.5, 1.5), reason)
        return self._start(call, mark) if mark.until is Until.STARTED else None

    def _start(self, call: Call, mark: Mark) -> Verdict | None:
        """Give the key up, and take the newest arguments with it."""
        store = self._store()
        while True:
            now, (entry,) = store.read(SPACE, [mark.key])
            if entry is None or holder_of(entry.value) != call.task_id:
                if mark.replaced:  # it may have been started before, and have crashed or been put off
                    self._take_up(call, store)
                return None
            newest = Newest.decode(data_of(entry.value))
            if newest.due > now:
                return Postpone(newest.due - now, "it was put off by a later call")
            if newest.arguments:
                # Kept before the key is given up: the message may come again, with its own arguments.
                kept = held_value(call.task_id, newest.arguments)
                store.update(ARGUMENTS, call.task_id, lambda _old, _now, kept=kept: Change(None, kept, mark.seconds))  # type: ignore[misc]
            if store.write(SPACE, mark.key, None, ttl=None, version=entry.version):
                if newest.arguments:
                    self._use(call, newest.arguments)
                return None

    def _take_up(self, call: Call, store: KeyValueStore) -> None:
        _, (entry,) = store.read(ARGUMENTS, [call.task_id])
        if entry is not None:
            self._use(call, data_of(entry.value))

    def _use(self, call: Call, arguments: bytes) -> None:
        call.args, call.kwargs = call.sent_args, call.sent_kwargs = self._decode(arguments)
        call.notes["unique"] = True

    def leave(self, call: Call, outcome: Outcome, error: BaseException | None) -> Outcome:
        """See :class:`Policy`."""
        mark = Mark.of(call.headers)
        if mark is None or outcome.state in AGAIN:
            return outcome
        keys = outcome.keys
        if call.notes.pop("unique", False):
            keys += (KeyWrite(ARGUMENTS.name, call.task_id, call.task_id),)
        if mark.until is Until.DONE and outcome.state not in UNFINISHED:
            keys += (KeyWrite(SPACE.name, mark.key, call.task_id),)
        return outcome._replace(keys=keys)

    def abandon(self, call: Call, outcome: Outcome) -> Outcome:
        """See :class:`Policy`.  A message may end so before it started, too."""
        mark = Mark.of(call.headers)
        if mark is None or mark.until is Until.WINDOW or outcome.state in UNFINISHED:
            return outcome
        return outcome._replace(keys=(*outcome.keys, KeyWrite(SPACE.name, mark.key, call.task_id)))
