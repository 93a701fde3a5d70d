r"""One effect for one key: the first success is recorded, and later runs return its result without running.

A run claims its key in the key-value store, in one atomic step, and holds it until its outcome is settled: in that same write the
key becomes the record of a success, or is freed.  So a key is held exactly as long as the message that holds it is leased, and who
rescues the message of a dead process frees its key.

=====================  ===============================================================
value of the key       meaning
=====================  ===============================================================
none                   nobody runs, nobody has succeeded (or it was too long ago)
``<task id>\n``        a run holds it
``\0done\n<record>``   succeeded: the record has the task's id and its encoded result
=====================  ===============================================================
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from celeriac.errors import CeleriacError
from celeriac.keyvalue import Claim, KeyValueStore, Namespace, data_of, held_value, holder_of
from celeriac.outcome import DeadReason, KeyWrite, Outcome, State
from celeriac.policies.keys import BrokenKey, CallKey
from celeriac.policies.renewal import HELD_SECONDS, Renewer
from celeriac.policy import Call, Finish, Policy, Postpone, Refuse, Skip, Verdict

logger = logging.getLogger("celeriac.policies")

SPACE = Namespace("idempotency")
DONE = "\0done"

WAIT_SECONDS = 1.0
"""How long a second run waits before it looks again, give or take a half, so that many do not come at once."""

RESULT_LIMIT = 64 * 1024
"""Bytes of a result that are kept with the key.  A larger one is read from the result store, for as long as it is kept there."""


class Conflict(str, Enum):
    """What a run does that finds another one running."""

    WAIT = "wait"
    """Goes to the schedule, without holding a slot, and looks again."""
    SKIP = "skip"
    FAIL = "fail"


class IdempotencyConflict(CeleriacError):
    """A task with this idempotency key runs already."""


@dataclass(frozen=True, slots=True)
class Results:
    """How results are written down."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    fetch: Callable[[str], Any]
    """The result of a task by its id, from the result store; ``None`` when it is gone."""


class Idempotency(Policy):
    """The policy of one task.

    Args:
        key: makes the key of a call.
        ttl: seconds that a success is remembered.
        conflict: what a second run does while the first runs.
        store: opens the key-value store of this process.
        results: how results are written down.
    """

    def __init__(
        self, key: CallKey, ttl: float, conflict: Conflict, store: Callable[[], KeyValueStore], results: Results
    ) -> None:
        self._key = key
        self._ttl = ttl
        self._conflict = conflict
        self._store = store
        self._results = results
        self._renewer = Renewer(store, SPACE)

    def enter(self, call: Call) -> Verdict | None:
        """See :class:`Policy`: one round trip."""
        try:
            name = self._name(call)
        except BrokenKey as error:
            return Refuse(DeadReason.INVALID, error)
        if name is None:
            return None
        found = self._store().claim(Claim(SPACE.name, name, call.task_id, b"", HELD_SECONDS))
        if found is not None:
            holder = holder_of(found)
            if holder == DONE:
                return Finish(self._value(data_of(found)), f"it has succeeded with this idempotency key, {name}")
            # A key that this message itself holds is left from a run that ended with its process, and only then.
            if not (holder == call.task_id and call.redelivered):
                return self._ruling(name, holder)
        call.notes["idempotency"] = name
        self._renewer.hold(name, call.task_id)
        return None

    def leave(self, call: Call, outcome: Outcome, error: BaseException | None) -> Outcome:
        """See :class:`Policy`: the key is settled with the outcome."""
        name = call.notes.pop("idempotency", None)
        if name is None:
            return outcome
        self._renewer.drop(name, call.task_id)
        if outcome.state is not State.SUCCEEDED:
            return self._freed(call, name, outcome)
        record = held_value(DONE, self._record(call))
        return outcome._replace(keys=(*outcome.keys, KeyWrite(SPACE.name, name, call.task_id, record, self._ttl)))

    def abandon(self, call: Call, outcome: Outcome) -> Outcome:
        """See :class:`Policy`."""
        try:
            name = self._name(call)
        except BrokenKey:
            return outcome
        if name is None:
            return outcome
        self._renewer.drop(name, call.task_id)
        return self._freed(call, name, outcome)

    def _name(self, call: Call) -> str | None:
        try:
            key = self._key.of(call.sent_args, call.sent_kwargs)
        except TypeError:  # the body will say the same
            return None
        return None if key is None else f"{call.task}:{key}"

    def _ruling(self, name: str, holder: str) -> Verdict:
        if self._conflict is Conflict.SKIP:
            return Skip(f"{holder} runs with the same idempotency key, {name}")
        if self._conflict is Conflict.FAIL:
            return Refuse(DeadReason.FAILED, IdempotencyConflict(f"{holder} runs with the same key, {name}"))
        return Postpone(WAIT_SECONDS * random.uniform(0.5, 1.5), f"{holder} runs with the same idempotency key, {name}")

    @staticmethod
    def _freed(call: Call, name: str, outcome: Outcome) -> Outcome:
        return outcome._replace(keys=(*outcome.keys, KeyWrite(SPACE.name, name, call.task_id)))

    def _record(self, call: Call) -> bytes:
        head = call.task_id.encode() + b"\n"
        try:
            encoded = self._results.encode(call.value)
        except Exception as error:  # the result is ignored, or its record would not have been written either
            logger.warning("The result of %s[%s] cannot be kept with its key: %s", call.task, call.task_id, error)
            return head
        return head + encoded if len(encoded) <= RESULT_LIMIT else head

    def _value(self, record: bytes) -> Any:
        task_id, _, encoded = record.partition(b"\n")
        return self._results.decode(encoded) if encoded else self._results.fetch(task_id.decode())
