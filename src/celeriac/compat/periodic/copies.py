"""Runs one message of each tick, where a tick may have been sent twice.

Where broker and shared state are in different stores, a scheduler that is cut short between claiming a tick and sending it leaves the
question whether it did; the next one sends it again.  Both messages have the tick's name, and each a mark of its own: the first that a
worker sees takes the tick, and one with another mark is settled without running.  A message that comes again (a retry, what a dead
process held, a replayed dead letter) has the mark that took it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.guarding import STORE_AWAY_SECONDS
from celeriac.compat.jobs import TaskJob
from celeriac.compat.verdicts import parked
from celeriac.errors import ConfigurationError, StoreError
from celeriac.keyvalue import Claim, KeyValueStore, Namespace, holder_of
from celeriac.outcome import Outcome, State

logger = logging.getLogger("celery.app.trace")

HEADER = "celeriac-tick-copy"
"""Header of a tick's message: the tick's name and the message's mark."""

COPIES = Namespace("tick-copies")

KEPT_SECONDS = 7 * 86_400.0
"""How long it is remembered which message took a tick.  One that waited for longer in its queue runs in any case."""


def new_copy(tick: str) -> list[str]:
    """The header of a message of this tick."""
    return [tick, uuid.uuid4().hex]


class CopyWatch:
    """Looks at messages of ticks before they run: one round trip each.

    Args:
        store: opens the key-value store of this process.
    """

    def __init__(self, store: Callable[[], KeyValueStore]) -> None:
        self._store = store

    def turned_away(self, job: TaskJob) -> Outcome | None:
        """What becomes of a message whose tick another one has taken; ``None`` when it may run."""
        try:
            tick, mark = map(str, job.headers[HEADER])
        except (TypeError, ValueError):
            return None  # not ours
        try:
            found = self._store().claim(Claim(COPIES.name, tick, mark, b"", KEPT_SECONDS))
        except StoreError as error:
            logger.info("Task %s[%s] waits: %s", job.name, job.task_id, error)
            return parked(job, time.time() + STORE_AWAY_SECONDS)
        if found is None or holder_of(found) == mark:
            return None
        logger.info("Task %s[%s] is not run: its tick was sent twice", job.name, job.task_id)
        return Outcome(job.delivery, State.IGNORED)


def watch_of(app: Any, broker: Broker) -> CopyWatch | None:
    """The watch of a worker; ``None`` where a tick and its claim are one write, or nothing keeps shared state."""
    try:
        connect.check_key_values(app)
    except ConfigurationError:
        return None
    with closing(connect.open_key_values(app)) as store:
        together = broker.shares_keys(store)
    return None if together else CopyWatch(lambda: connect.key_values(app))
