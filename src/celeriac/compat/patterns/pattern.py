"""What a production pattern says of the options that switch it on."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, TypeVar

from celeriac.compat.durations import seconds
from celeriac.errors import ConfigurationError
from celeriac.policy import Policy

E = TypeVar("E", bound=Enum)


def option(task: Any, name: str) -> Any:
    """A task's option; ``None`` when it has none.  A function is given back as it was declared, not as the task's method."""
    value = getattr(task, name, None)
    return value.__func__ if inspect.ismethod(value) and value.__self__ is task else value


def choice(task: Any, name: str, kind: type[E], default: E) -> E:
    """An option that is one of a few words.  Raises ``ConfigurationError``."""
    value = option(task, name)
    if value is None:
        return default
    words = [each.value for each in kind]
    if value not in words:
        close = difflib.get_close_matches(str(value), words, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"{name} of task {task.name} is one of {', '.join(words)}, not {value!r}.{hint}")
    return kind(value)


def positive_seconds(task: Any, name: str, default: float) -> float:
    """An option that is a length of time: a number or a ``timedelta``.  Raises ``ConfigurationError``."""
    value = option(task, name)
    try:
        found = default if value is None else seconds(value)
    except (TypeError, ValueError):
        found = None
    if isinstance(value, bool) or not found or not 0 < found < float("inf"):
        raise ConfigurationError(f"{name} of task {task.name} must be seconds above 0, not {value!r}")
    return found


class Pattern(ABC):
    """One pattern: its task options, their check, and its policy."""

    options: ClassVar[Mapping[str, str]]
    """The task options that belong to it, with what each means in a few words."""

    shares_state: ClassVar[bool] = False
    """Whether it needs the store of what workers share."""

    def is_used(self, task: Any) -> bool:
        """Whether a task has any of the options."""
        return any(getattr(task, name, None) is not None for name in self.options)

    def changes_sending(self, task: Any) -> bool:
        """Whether each call of a task that uses the pattern has to go the long way when it is sent."""
        return False

    @abstractmethod
    def check(self, task: Any) -> None:
        """Look at the options of a task that uses the pattern, when it is declared.

        The app's configuration may not be loaded yet, and must not be by this.

        Raises:
            ConfigurationError: options that contradict each other or cannot work; the text names the task and the way out.
        """

    def install(self, task: Any) -> None:  # noqa: B027 - most patterns have nothing to do here
        """Prepare a task that uses the pattern and was checked, in every process that declares it; a second call does nothing."""

    def policy(self, app: Any, task: Any) -> Policy | None:
        """What wraps the task's runs in a worker; ``None`` when the pattern has its place elsewhere."""
        return None
