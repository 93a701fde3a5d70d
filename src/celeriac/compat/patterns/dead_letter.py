"""``dead_letter=False``: failures of a task that nobody wants to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from celeriac.compat.patterns.pattern import Pattern
from celeriac.errors import ConfigurationError


class DeadLetterPattern(Pattern):
    """Whether what fails for good is kept among the dead letters; :class:`celeriac.compat.verdicts.Verdicts` goes by it."""

    options: ClassVar[Mapping[str, str]] = {"dead_letter": "False: a message that failed for good is not kept"}

    def check(self, task: Any) -> None:
        """See :meth:`Pattern.check`."""
        if not isinstance(task.dead_letter, bool):
            raise ConfigurationError(f"Task {task.name}: dead_letter is {task.dead_letter!r}; it is True or False")
