"""``unique``, ``unique_by``, ``unique_for``, ``unique_conflict``, ``unique_delay``.  The sender's part is in
:mod:`celeriac.compat.uniqueness`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kombu.serialization import loads, prepare_accept_content

from celeriac.compat import connect
from celeriac.compat.patterns.pattern import Pattern, choice, option, positive_seconds
from celeriac.errors import ConfigurationError
from celeriac.policies.keys import CallKey
from celeriac.policies.unique import Conflict, Uniqueness, Until
from celeriac.policy import Policy

LONGEST_SECONDS = 86_400.0
"""How long a key is held at most, unless ``unique_for`` says otherwise (from when the task is due).  Too low, and equal tasks are sent
while one still waits in a backlog or for a retry; too high, and a message that was lost without a trace (its queue purged, run by a
stock Celery worker) keeps others like it from being sent for so long."""


@dataclass(frozen=True, slots=True)
class UniqueOptions:
    """What a task says of its uniqueness."""

    until: Until
    conflict: Conflict
    seconds: float
    delay: float | None
    """How long each call puts a debounced task off."""
    key: CallKey

    @property
    def replaces(self) -> bool:
        """Whether later calls change the message that is on its way."""
        return self.conflict in (Conflict.REPLACE, Conflict.DEBOUNCE)


class UniquePattern(Pattern):
    """While a task is on its way, an equal one is not sent."""

    options: ClassVar[Mapping[str, str]] = {
        "unique": "until_started, until_done (or True), or window: an equal task is not sent meanwhile",
        "unique_by": "what makes tasks equal: names of arguments, a template, or a function (all arguments)",
        "unique_for": "seconds: the window, or the longest that others are kept from being sent (86400)",
        "unique_conflict": "what sending does then: existing (return that one), replace, debounce or raise",
        "unique_delay": "seconds by which each call puts a debounced task off",
    }
    shares_state = True

    def check(self, task: Any) -> None:
        """See :class:`Pattern`."""
        read_options(task)

    def changes_sending(self, task: Any) -> bool:
        """See :class:`Pattern`."""
        return True

    def policy(self, app: Any, task: Any) -> Policy:
        """See :class:`Pattern`."""

        def decode(raw: bytes) -> tuple[list[Any], dict[str, Any]]:
            head, _, payload = raw.partition(b"\n")
            content_type, encoding = json.loads(head)
            accept = prepare_accept_content(app.conf.accept_content)
            args, kwargs = loads(payload, content_type, encoding, accept=accept)
            return args, kwargs

        return Uniqueness(lambda: connect.key_values(app), decode)


def read_options(task: Any) -> UniqueOptions:
    """A task's options.

    Raises:
        ConfigurationError: they contradict each other or cannot work.
    """
    until = _until(task)
    conflict = choice(task, "unique_conflict", Conflict, Conflict.EXISTING)
    if until is Until.WINDOW and option(task, "unique_for") is None:
        raise ConfigurationError(f"Task {task.name} is unique for a window: unique_for=<seconds> must say how long")
    delay = None
    if conflict is Conflict.DEBOUNCE:
        if option(task, "unique_delay") is None:
            raise ConfigurationError(f"Task {task.name} is debounced: unique_delay=<seconds> must say by how much")
        delay = positive_seconds(task, "unique_delay", 0.0)
    elif option(task, "unique_delay") is not None:
        raise ConfigurationError(f"unique_delay of task {task.name} belongs to unique_conflict='debounce'")
    if conflict in (Conflict.REPLACE, Conflict.DEBOUNCE) and until is not Until.STARTED:
        raise ConfigurationError(
            f"unique_conflict={conflict.value!r} of task {task.name} needs unique='until_started': what runs cannot be given "
            "other arguments"
        )
    given = option(task, "unique_by")
    key = CallKey("unique_by", task.name, True if given is None else given, inspect.signature(task.run))
    return UniqueOptions(until, conflict, positive_seconds(task, "unique_for", LONGEST_SECONDS), delay, key)


def _until(task: Any) -> Until:
    given = option(task, "unique")
    if given is True:
        return Until.DONE
    if given is None and option(task, "unique_for") is not None:
        return Until.WINDOW
    if given is None or given is False:
        names = [name for name in UniquePattern.options if option(task, name) is not None and name != "unique"]
        if names:
            raise ConfigurationError(
                f"Task {task.name} has {names[0]} and no unique, which it belongs to: until_started, until_done or window"
            )
        raise ConfigurationError(f"unique of task {task.name} is {given!r}: leave it out, or say until when")
    return choice(task, "unique", Until, Until.DONE)
