"""The contract of a policy: what wraps the run of one task, in ``policies/`` one per file.

A task without policies does not pay for them.  With some, they are entered in order before the body, and left in the opposite
order after it.  The first that has a verdict on entering ends the run before it begins: the body is not called, and the policies
that were entered are left.  A delivery that ends in any other way (revoked, expired, its process killed, its outcome refused by the
store) is *abandoned* instead, perhaps in another process than the one that entered: what a policy holds for a run must be found
again from the message alone, or go by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from celeriac.outcome import DeadReason, Outcome


@dataclass(slots=True)
class Call:
    """One run of a task, as its policies see it."""

    task: str
    """The task's name."""
    task_id: str
    args: list[Any] | tuple[Any, ...]
    """The arguments; a policy may replace them (a validated payload)."""
    kwargs: dict[str, Any]
    queue: str
    headers: dict[str, Any]
    """Of the message; to be read only."""
    attempt: int
    """Retries before this run."""
    redelivered: bool
    """Whether the message may have run before."""
    sent_args: list[Any] | tuple[Any, ...] = ()
    """The arguments as they came in the message, whatever policies make of them; replaced when later calls replaced them."""
    sent_kwargs: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    """What the body returned, for :meth:`Policy.leave`."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What policies remember from entering to leaving, each under its own name."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The task succeeds with this value, without running."""

    value: Any
    reason: str
    """For the log, in a few words."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """The message goes to the schedule.  No attempt is counted."""

    seconds: float
    reason: str
    """For the log, in a few words."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The task fails for good: it is never retried, whatever its options say."""

    reason: DeadReason
    error: Exception
    dead_letter: bool = True
    """Whether the message is kept among the dead letters."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The task is not run and has no result of its own (Celery's ``Ignore``)."""

    reason: str


Verdict = Finish | Postpone | Refuse | Skip


class Policy:
    """One policy of one task.  Made once per process; used by several threads at once."""

    def enter(self, call: Call) -> Verdict | None:
        """Before the body.  A verdict ends the run.

        May raise :class:`~celeriac.errors.StoreUnavailable`: the message is postponed for a second then, and the reason logged.
        """
        return None

    def leave(self, call: Call, outcome: Outcome, error: BaseException | None) -> Outcome:
        """After the body, or after a later policy's verdict: look at what came of it, and add to it what is to be settled.

        Args:
            call: as it was entered.
            outcome: what is about to be settled.
            error: what the body raised, if it did; retries and Celery's other control exceptions included.

        It must not raise for a store that is away: what it wrote is lost then, which the policy's documentation says.
        """
        return outcome

    def abandon(self, call: Call, outcome: Outcome) -> Outcome:
        """A delivery ended without being left: give up what its run may hold, by adding to the outcome.

        Called for every delivery of the task that was revoked or expired, whose process died or was killed, or whose outcome the
        store refused; whether or not it was ever entered, in any process, and perhaps again after :meth:`leave`.

        Args:
            call: made from the message anew.
            outcome: what is about to be settled; where the message goes back to its queue, its state is ``INTERRUPTED``.
        """
        return outcome
