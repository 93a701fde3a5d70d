"""Puts messages into the broker: tries again, waits for room, and gives up in time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kombu.exceptions import OperationalError

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.back_pressure import BLOCK, QueueIsFull, Terms, bounds_of, check_servers_bounds, full_choice
from celeriac.errors import QueueFull, StoreFull, StoreUnavailable, Unroutable
from celeriac.keyvalue import Claim
from celeriac.message import Bound, Message

FIRST_LOOK, LONGEST_LOOK = 0.01, 0.25
"""Seconds between two looks of a sender that waits for room.  Shorter asks more of the broker; longer leaves room unused."""


class PublishFailed(StoreUnavailable, OperationalError):
    """The broker could not be reached within the publish policy; nothing is known to have been sent.

    Celery's users know it as :exc:`kombu.exceptions.OperationalError`.
    """


class PublishRefused(StoreFull, OperationalError):
    """The broker has no room for the message; nothing was sent."""


class PublishUnroutable(Unroutable, OperationalError):
    """No queue is bound for the message; it was not sent."""


_waits_itself: ContextVar[bool] = ContextVar("celeriac_waits_itself", default=False)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Inside the block a full queue raises :class:`QueueIsFull` even where a sender is to block, and says for how long."""
    token = _waits_itself.set(True)
    try:
        yield
    finally:
        _waits_itself.reset(token)


def put(
    app: Any, messages: Sequence[Message], terms: Terms, claims: Sequence[Claim | None] | None = None
) -> list[bytes | None]:
    """Put messages into the broker; with ``claims`` return its answers (see :meth:`Broker.publish_claimed`).

    Raises:
        PublishFailed: the broker was not to be reached in time.
        PublishRefused: it has no room for anything.
        QueueIsFull: a queue has no room.
    """
    bounds = bounds_of(app, messages, terms)
    started, tries, looks = time.monotonic(), 0, 0
    deadline = started + terms.timeout
    while True:
        broker = connect.producer(app, deadline - time.monotonic())
        if bounds and not broker.counts_bounds:
            check_servers_bounds(app, bounds, terms)
        try:
            return _publish(app, broker, messages, bounds, claims)
        except Unroutable as error:
            raise PublishUnroutable(f"{len(messages)} messages were not sent: {error}") from error
        except QueueFull as error:
            if error.refused is not None:
                messages = [messages[place] for place in error.refused]
                claims = None if claims is None else [claims[place] for place in error.refused]
            pause = _pause_when_full(app, error, terms, started, looks)
            looks += 1
            deadline = time.monotonic() + pause + terms.timeout  # what was waited for room is not the broker's slowness
        except StoreFull as error:
            raise PublishRefused(f"{len(messages)} messages were not sent: {error}") from error
        except StoreUnavailable as error:
            given = _pause(terms.policy, tries)
            tries += 1
            if given is None or time.monotonic() + given >= deadline:
                took = time.monotonic() - started
                raise PublishFailed(f"Gave up sending after {tries} attempts in {took:.1f} s: {error}") from error
            pause = given
        time.sleep(pause)


def _publish(
    app: Any,
    broker: Broker,
    messages: Sequence[Message],
    bounds: Mapping[str, Bound],
    claims: Sequence[Claim | None] | None,
) -> list[bytes | None]:
    if claims is not None:
        return broker.publish_claimed(messages, claims, connect.key_values(app), bounds)
    if bounds:
        broker.publish_within(messages, bounds)
    else:
        broker.publish(messages)
    return []


def _pause(policy: dict[str, Any] | None, tries: int) -> float | None:
    """Seconds to wait before the next try; ``None``: give up.  The formula of kombu's ``retry_over_time``."""
    if policy is None:
        return None
    most = policy.get("max_retries", 3)
    if most is not None and tries >= most:
        return None
    start, step, longest = (policy.get(f"interval_{name}", value) for name, value in
                            (("start", 0), ("step", 0.2), ("max", 0.2)))  # fmt: skip
    return float(min(start + step * tries, longest))


def look_pause(looks: int) -> float:
    """Seconds until a sender that waits for room looks again.  Random, so that many do not look at once."""
    return random.uniform(0.5, 1.0) * min(LONGEST_LOOK, FIRST_LOOK * 2 ** min(looks, 10))


def _pause_when_full(app: Any, error: QueueFull, terms: Terms, started: float, looks: int) -> float:
    """Seconds until the next look at a full queue.  Raises ``QueueIsFull`` when there is to be none."""
    refusal = QueueIsFull(*error.args)
    waits = not error.never_fits and full_choice(app.amqp.queues.get(error.queue), terms) == BLOCK
    left = started + terms.full_timeout - time.monotonic() if waits else 0.0
    if left <= 0 or _waits_itself.get():
        refusal.patience = max(0.0, left)
        raise refusal from error
    return min(left, look_pause(looks))
