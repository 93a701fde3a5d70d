"""What came of a delivery, as plain values: everything that settling it must write.

::

    scheduled -> queued -> leased -> running -> succeeded
                   ^          |         |-----> retrying  -> scheduled      (attempt counted)
                   |          |         |-----> snoozed   -> scheduled      (no attempt counted)
                   |          |         |-----> failed    -> dead letter    (retries exhausted, rejected, invalid)
                   |          |         |-----> revoked / expired / ignored
                   |----------|---------|  interrupted: owner died, shutdown, unstarted work handed back

:data:`TRANSITIONS` is that picture as a table.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from celeriac.message import Delivery, Message


class State(str, Enum):
    """Where a message is in its life."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    RETRYING = "retrying"
    SNOOZED = "snoozed"
    FAILED = "failed"
    REVOKED = "revoked"
    EXPIRED = "expired"
    IGNORED = "ignored"
    INTERRUPTED = "interrupted"
    DEAD = "dead"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.QUEUED}),
    State.QUEUED: frozenset({State.LEASED}),
    State.LEASED: frozenset(
        {State.RUNNING, State.SNOOZED, State.REVOKED, State.EXPIRED, State.INTERRUPTED, State.FAILED}
    ),
    State.RUNNING: frozenset(
        {
            State.SUCCEEDED,
            State.RETRYING,
            State.SNOOZED,
            State.FAILED,
            State.REVOKED,
            State.IGNORED,
            State.INTERRUPTED,
        }
    ),
    State.RETRYING: frozenset({State.SCHEDULED}),
    State.SNOOZED: frozenset({State.SCHEDULED}),
    State.INTERRUPTED: frozenset({State.QUEUED, State.DEAD}),
    State.FAILED: frozenset({State.DEAD}),
    State.DEAD: frozenset({State.QUEUED}),
    State.SUCCEEDED: frozenset(),
    State.REVOKED: frozenset(),
    State.EXPIRED: frozenset(),
    State.IGNORED: frozenset(),
}
"""From each state, the states that may follow it.  A dead letter goes back to its queue when it is replayed."""


class Result(NamedTuple):
    """A task's state for the result store, already encoded."""

    task_id: str
    state: str
    """Celery's name of the state: ``SUCCESS``, ``FAILURE``, ``RETRY``, ``STARTED``, ``REVOKED`` or a custom one."""
    payload: bytes
    """The encoded result record, in the format that Celery's result stores share."""


class ChordPart(NamedTuple):
    """One finished member of a chord's header, to be counted once."""

    group_id: str
    task_id: str
    index: int | None  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """Position in the header; ``None`` when the sender did not say."""
    payload: bytes
    """The member's encoded result, as the chord's callback will read it."""
    callback: bytes
    """The encoded signature of the chord's callback.  Not stored: it comes back in :attr:`Settlement.ready`."""


class DeadReason(str, Enum):
    """Why a message was given up."""

    FAILED = "failed"
    """The task raised, and had no retries left or none at all."""
    REJECTED = "rejected"
    INVALID = "invalid"
    """The message or its arguments could not be understood."""
    UNKNOWN_TASK = "unknown_task"
    LOST = "lost"
    """Its process died, and a body that started must not start again (early acknowledgement)."""
    POISON = "poison"
    """It killed its process too many times."""
    TIME_LIMIT = "time_limit"
    BREAKER = "breaker"
    """Its circuit breaker was open."""
    OVERFLOW = "overflow"
    """It made room in a queue that had reached its maximum length."""


class DeadLetter(NamedTuple):
    """Why and how a message was given up.  The queue and the raw bytes come from its delivery."""

    reason: str
    """A :class:`DeadReason` value."""
    error: str
    """One line: the exception's type and text."""
    task: str = ""
    """The task's name, or empty where the message does not tell."""
    task_id: str = ""
    traceback: str = ""
    attempts: int = 0
    """Retries before this one."""
    crashes: int = 0
    worker: str = ""
    at: float = 0.0
    """Seconds since the epoch."""


class KeyWrite(NamedTuple):
    """A held key (see :mod:`celeriac.keyvalue`) that is filled or given up together with an outcome, if its holder still has it."""

    space: str
    """Name of the key's namespace, which is not a listed one."""
    name: str
    holder: str
    """The key is left alone when somebody else holds it, or nobody."""
    value: bytes | None = None
    """What the whole value becomes; ``None`` deletes the key."""
    ttl: float | None = None
    """Seconds until the key goes by itself; ``None``: never."""


class Outcome(NamedTuple):
    """What came of one delivery.  Settling it writes all of this or none of it."""

    delivery: Delivery
    state: State
    results: tuple[Result, ...] = ()
    publish: tuple[Message, ...] = ()
    """What follows: the retry, callbacks, the next link of the chain, error callbacks, a chord's callback."""
    chord_parts: tuple[ChordPart, ...] = ()
    requeue: bytes | None = None
    """Put these bytes back at the head of the queue that the delivery came from."""
    dead: DeadLetter | None = None
    chords_done: tuple[str, ...] = ()
    """Ids of the groups whose callback is among :attr:`publish`: their counts can go."""
    guarded: bool = False
    """The message may have run before: a ``SUCCESS`` that is already stored is kept."""
    keys: tuple[KeyWrite, ...] = ()
    """Keys of the key-value store that go with it.  A broker whose store they are in writes them in the same settle; else they are
    written before everything else, so that whoever repeats the settle finds them."""


class ReadyChord(NamedTuple):
    """A chord whose last member was just counted.  Its callback is now this caller's to publish."""

    outcome: Outcome
    part: ChordPart


class Settlement(NamedTuple):
    """What became of a batch of outcomes."""

    fenced: int = 0
    """How many were refused because the owner no longer held their lease.  Nothing of them was written."""
    ready: tuple[ReadyChord, ...] = ()
    """Chords that these outcomes completed.  Their results and counts are written; the messages stay leased until
    they are settled again, without :attr:`Outcome.chord_parts` and with the callback among
    :attr:`Outcome.publish`."""
