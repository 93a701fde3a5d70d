"""Everything that Celeriac raises.

::

    CeleriacError
    ├── ConfigurationError        a setting, option or URL that cannot work; the text names the way out
    │   └── MissingExtra          an optional dependency is not installed; the text has the pip line
    ├── StoreError                a broker or a result store said no
    │   ├── StoreUnavailable      not reachable, restarting, timed out: try again
    │   ├── StoreFull             out of memory or disk: try again when there is room
    │   └── SchemaError           the store holds data of a newer version, or the server is too old
    ├── OwnerLost                 this worker's leases were taken over; what it holds is no longer its own
    ├── QueueFull                 the queue's maximum length is reached
    └── NotUnique                 an equal task is on its way; nothing was sent
"""

from __future__ import annotations


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


class StoreFull(StoreError):
    """The store is out of memory or disk.  Nothing was written; it can be tried again when there is room."""


class SchemaError(StoreError):
    """The store's data or server is of a version that this package cannot use."""


class OwnerLost(CeleriacError):
    """The owner is not registered, or its leases were taken over.  Register under a new name and lease again."""


class QueueFull(CeleriacError):
    """The queue has reached its maximum length; nothing was sent."""


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
