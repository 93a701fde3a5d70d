"""``idempotency_key``, ``idempotency_ttl``, ``idempotency_conflict``."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from kombu.serialization import dumps, loads, prepare_accept_content

from celeriac.compat import connect
from celeriac.compat.patterns.pattern import Pattern, choice, option, positive_seconds
from celeriac.errors import ConfigurationError
from celeriac.policies.idempotency import Conflict, Idempotency, Results
from celeriac.policies.keys import CallKey
from celeriac.policy import Policy

DEFAULT_TTL = 86_400.0


class IdempotencyPattern(Pattern):
    """One effect for one key."""

    options: ClassVar[Mapping[str, str]] = {
        "idempotency_key": "template, names of arguments, or function: one effect for each key",
        "idempotency_ttl": "seconds that a success is remembered (86400)",
        "idempotency_conflict": "what a second run does while the first runs: wait, skip or fail",
    }
    shares_state = True

    def check(self, task: Any) -> None:
        """See :class:`Pattern`."""
        if option(task, "idempotency_key") is None:
            given = next(name for name in self.options if option(task, name) is not None)
            raise ConfigurationError(f"Task {task.name} has {given} and no idempotency_key, which it belongs to")
        key_of(task)
        choice(task, "idempotency_conflict", Conflict, Conflict.WAIT)
        positive_seconds(task, "idempotency_ttl", DEFAULT_TTL)

    def changes_sending(self, task: Any) -> bool:
        """See :class:`Pattern`: whether a call may lack what the key needs."""
        return not key_of(task).is_certain

    def policy(self, app: Any, task: Any) -> Policy:
        """See :class:`Pattern`."""
        conflict = choice(task, "idempotency_conflict", Conflict, Conflict.WAIT)
        ttl = positive_seconds(task, "idempotency_ttl", DEFAULT_TTL)
        return Idempotency(key_of(task), ttl, conflict, lambda: connect.key_values(app), results_of(app))


def key_of(task: Any) -> CallKey:
    """The maker of a task's keys.  Raises ``ConfigurationError``."""
    return CallKey("idempotency_key", task.name, option(task, "idempotency_key"), inspect.signature(task.run))


def check_call(task: Any, args: Any, kwargs: Any) -> None:
    """Refuse a call that lacks what the task's key needs, when it is sent.  Raises ``BrokenKey``."""
    if getattr(task, "idempotency_key", None) is not None:
        # What does not fit the signature is the business of Celery's own check.
        with contextlib.suppress(TypeError):
            key_of(task).of(args or (), kwargs or {})


def results_of(app: Any) -> Results:
    """Results as the app writes them."""

    def encode(value: Any) -> bytes:
        content_type, encoding, payload = dumps(value, app.conf.result_serializer)
        head = json.dumps([content_type, encoding]).encode()
        return head + b"\n" + (payload.encode() if isinstance(payload, str) else payload)

    def decode(raw: bytes) -> Any:
        head, _, payload = raw.partition(b"\n")
        accept = prepare_accept_content(app.conf.result_accept_content or app.conf.accept_content)
        content_type, encoding = json.loads(head)
        return loads(payload, content_type, encoding, accept=accept)

    def fetch(task_id: str) -> Any:
        meta = app.backend.get_task_meta(task_id, cache=False)
        return meta["result"] if meta["status"] == "SUCCESS" else None

    return Results(encode, decode, fetch)
