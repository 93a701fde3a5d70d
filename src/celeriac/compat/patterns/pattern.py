"""What a production pattern says of the options that switch it on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from celeriac.policy import Policy


class Pattern(ABC):
    """One pattern: its task options, their check, and its policy."""

    options: ClassVar[Mapping[str, str]]
    """The task options that belong to it, with what each means in a few words."""

    def is_used(self, task: Any) -> bool:
        """Whether a task has any of the options."""
        return any(getattr(task, name, None) is not None for name in self.options)

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
