"""Everything that Celeriac raises.

::

    CeleriacError
    ├── ConfigurationError        a setting, option or URL that cannot work; the text names the way out
    │   └── MissingExtra          an optional dependency is not installed; the text has the pip line
    ├── StoreError                a broker or a result store said no
    │   ├── StoreUnavailable      not reachable, restarting, timed out: try again
    │   │   └── AccessDenied      a password, a right or a certificate is refused (a ConfigurationError, too)
    │   ├── StoreFull             out of memory or disk: try again when there is room
    │   ├── Unroutable            nothing would get the message
    │   └── SchemaError           the store holds data of a newer version, or the server is too old
    ├── OwnerLost                 this worker's leases were taken over; what it holds is no longer its own
    ├── QueueFull                 the queue's maximum length is reached
    ├── InvalidPayload            arguments that do not fit the task's signature; also a ValueError
    ├── Snooze                    raised by a task to run later, no attempt counted (celeriac.compat.snooze)
    └── NotUnique                 an equal task is on its way; nothing was sent
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class CeleriacError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(CeleriacError):
    """A setting, option or URL that cannot work.  The text names the way out."""


class MissingExtra(ConfigurationError):
    """An optional dependency is not installed.

    Args:
        feature: what was asked for, for example ``"The Redis broker"``.
        extra: the extra that has it, for example ``"redis"``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'celeriac[{extra}]'")


class StoreError(CeleriacError):
    """A broker or a result store refused or failed."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, is starting, or did not answer in time.  What was asked may have been done."""


class AccessDenied(StoreUnavailable, ConfigurationError):
    """The store refuses this user, or its certificate is not to be trusted.  Nothing was done.

    A worker does not start with it.  One that is running already goes on trying: whoever changed the password, the
    rights or the certificate can change them back, and until then its work is kept.
    """


class StoreFull(StoreError):
    """The store is out of memory or disk.  Nothing was written; it can be tried again when there is room."""


class Unroutable(StoreError):
    """No queue is bound for the message, so nothing would get it.  It was not sent."""


class SchemaError(StoreError):
    """The store's data or server is of a version that this package cannot use."""


class OwnerLost(CeleriacError):
    """The owner is not registered, or its leases were taken over.  Register under a new name and lease again."""


class QueueFull(CeleriacError):
    """The queue has reached its maximum length; nothing was sent.

    Args:
        queue: its name.
        max_length: its maximum length; ``None`` where only the broker knows it.
        length: how much lay in it; ``None`` where the broker does not say.
        count: how many messages were to be added.
        refused: places of the messages that were not sent, where the others were (RabbitMQ has no all or nothing).
    """

    def __init__(
        self,
        queue: str,
        max_length: int | None = None,
        length: int | None = None,
        count: int = 1,
        refused: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(queue, max_length, length, count, refused)
        self.queue = queue
        self.max_length = max_length
        self.length = length
        self.count = count
        self.refused = refused

    @property
    def never_fits(self) -> bool:
        """Whether so many messages never have room in it together."""
        return self.refused is None and self.max_length is not None and self.count > self.max_length

    def __str__(self) -> str:
        if self.refused is not None and len(self.refused) < self.count:
            return f"Queue {self.queue} has no room: {len(self.refused)} of {self.count} messages were refused, the others sent"
        what = "another message" if self.count == 1 else f"{self.count:,} more"
        holds = "" if self.length is None else f" holds {self.length:,} and"
        most = "" if self.max_length is None else f": it{holds} takes at most {self.max_length:,}"
        hint = ". So many never have room in it: send fewer at a time" if self.never_fits else ""
        return f"Queue {self.queue} has no room for {what}{most}{hint}"


class NotUnique(CeleriacError):
    """A unique task was not sent, because an equal one is on its way.

    Args:
        task: its name.
        task_id: id of the one that is on its way.
    """

    def __init__(self, task: str, task_id: str) -> None:
        super().__init__(f"{task} was not sent: an equal one, {task_id}, is on its way")
        self.task = task
        self.task_id = task_id

    def __reduce__(self) -> tuple[type[NotUnique], tuple[str, str]]:
        """For pickle: by what it was made of."""
        return NotUnique, (self.task, self.task_id)


class FieldReason(NamedTuple):
    """What is wrong with one field of a payload."""

    field: str
    """Where it is, from the parameter's name on: ``order.lines.0.quantity``.  Empty: the arguments as a whole."""
    message: str
    """For people."""
    kind: str
    """For programs: pydantic's name of the error, such as ``missing`` or ``greater_than``."""


class InvalidPayload(CeleriacError, ValueError):
    """Arguments that do not fit the signature of their task.  Nothing was sent, or nothing was run.

    Args:
        task: the task's name.
        reasons: what is wrong, field by field; triples of text will do (result stores keep the arguments of an exception as JSON).
    """

    refused = False
    """Whether a worker refused a message for it, in place of its sender being told."""

    def __init__(self, task: str, reasons: Iterable[Iterable[Any]]) -> None:
        self.task = task
        self.reasons = tuple(FieldReason(*map(str, reason)) for reason in reasons)
        super().__init__(task, [list(reason) for reason in self.reasons])

    def __str__(self) -> str:
        told = "; ".join(
            f"{reason.field}: {reason.message}" if reason.field else reason.message for reason in self.reasons
        )
        return f"{self.task} cannot take these arguments: {told}"

    def report(self) -> str:
        """One line for each field, with the kind of the error."""
        return "".join(f"{each.field or '(arguments)'}: {each.message} [{each.kind}]\n" for each in self.reasons)
