"""Keeps messages in memory while the broker is away, for apps that ask for it (``celeriac_publish_buffer``).

The first message that cannot be sent in time goes into the buffer instead of raising, and so does everything after it: order is
kept.  A thread sends them when the broker is back.  A buffer that is full raises.  At exit it is emptied within
:data:`EXIT_SECONDS`, and each message that cannot be sent by then is named in the log.  A process that is killed loses what is in
its buffer: whoever cannot have that writes messages into a database of their own (an outbox).
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from celeriac.compat.back_pressure import Terms, bounds_of
from celeriac.compat.connect import PerProcess
from celeriac.compat.posting import PublishFailed, put
from celeriac.compat.uniqueness import Ticket
from celeriac.errors import QueueFull, StoreFull, StoreUnavailable
from celeriac.message import Message, task_of

logger = logging.getLogger("celeriac.publish")

EXIT_SECONDS = 5.0
"""``celeriac_publish_buffer_exit_timeout``: how long a process that ends waits for the broker."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to empty the buffer."""

TOGETHER = 500
"""Most messages sent in one round trip."""

NAMED = 100
"""Most messages that are named, one line each, when they are lost; all are counted."""


class Posted(NamedTuple):
    """A message with what is announced once it is sent."""

    message: Message
    name: str
    headers: dict[str, Any]
    announce: Callable[[], None] | None
    ticket: Ticket | None = None
    """Of a unique task.  Such a message is never kept: whoever sends it needs to know which one is on its way."""


class PublishBuffer:
    """The buffer of one app in one process."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._waiting: deque[tuple[Posted, Terms]] = deque()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        """Held by whoever takes messages out, so that they are sent in order."""
        self._thread: threading.Thread | None = None
        atexit.register(self.close)

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, posted: Sequence[Posted], terms: Terms) -> None:
        """Send messages, or keep them behind those that wait.

        Raises:
            PublishFailed: the broker is away and there is no room for them.
            PublishRefused, QueueIsFull: as without a buffer.
        """
        if not self._waiting:
            try:
                put(self._app, [each.message for each in posted], terms)
            except PublishFailed as error:
                self._keep(posted, terms, error)
            else:
                announce(posted)
            return
        self._keep(posted, terms, None)

    def _keep(self, posted: Sequence[Posted], terms: Terms, error: PublishFailed | None) -> None:
        with self._lock:
            if len(self._waiting) + len(posted) > terms.buffered:
                raise PublishFailed(
                    f"The broker is away, and the buffer (celeriac_publish_buffer = {terms.buffered}) has no room: "
                    f"{len(self._waiting)} messages wait in it"
                ) from error
            self._waiting.extend((each, terms) for each in posted)
            if self._thread is None:
                logger.warning("Messages are kept until the broker is back: %s", error)
                self._thread = threading.Thread(target=self._empty, name="celeriac-publish-buffer", daemon=True)
                self._thread.start()

    # -- emptying --------------------------------------------------------------------------------------------------

    def _empty(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._sending:
                advanced = self._send_some()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    logger.warning("The broker is back: all messages that were kept are sent")
                    return
            pause = FIRST_PAUSE if advanced else min(2 * pause, LONGEST_PAUSE)
            if not advanced:
                time.sleep(pause)

    def _send_some(self) -> bool:
        """Send the first ones together; return whether that was done."""
        batch = self._first()
        if not batch:
            return True
        try:
            put(self._app, [posted.message for posted, _ in batch], batch[0][1]._replace(policy=None, full_timeout=0.0))
        except (StoreUnavailable, StoreFull, QueueFull) as error:
            logger.debug("Messages stay in the buffer: %s", error)
            return False
        except Exception as error:  # it would come again for ever, and keep the others waiting
            for posted, _ in batch:
                logger.critical("LOST: %s could not be sent: %s", described(posted), error)
        else:
            announce([posted for posted, _ in batch])
        with self._lock:
            for _ in batch:
                self._waiting.popleft()
        return True

    def _first(self) -> list[tuple[Posted, Terms]]:
        """As many as can go in one round trip.  Those for bounded queues go one by one: together they may never have room."""
        with self._lock:
            waiting = [self._waiting[i] for i in range(min(TOGETHER, len(self._waiting)))]
        for place, (posted, terms) in enumerate(waiting):
            if bounds_of(self._app, [posted.message], terms):
                return waiting[: max(1, place)]
        return waiting

    def close(self) -> None:
        """Send what is left, for at most the time that the app gives; name what could not be sent."""
        given = self._app.conf.get("celeriac_publish_buffer_exit_timeout")
        deadline = time.monotonic() + (EXIT_SECONDS if given is None else float(given))
        while self._waiting and time.monotonic() < deadline:
            if self._sending.acquire(timeout=max(0.0, deadline - time.monotonic())):
                try:
                    advanced = self._send_some()
                finally:
                    self._sending.release()
                if not advanced:
                    time.sleep(min(FIRST_PAUSE, max(0.0, deadline - time.monotonic())))
        with self._lock:
            lost = [posted for posted, _ in self._waiting]
            self._waiting.clear()
        for posted in lost[:NAMED]:
            logger.critical("LOST: %s was not sent: the broker was away until the process ended", described(posted))
        if lost:
            logger.critical("LOST: %d messages in all were not sent before the process ended", len(lost))


def announce(posted: Iterable[Posted]) -> None:
    """Tell whoever is to be told that messages were sent."""
    for each in posted:
        if each.announce is not None:
            each.announce()


def described(posted: Posted) -> str:
    """A message for people: task, id and queue."""
    task, task_id = task_of(posted.message.raw)
    return f"{posted.name or task}[{task_id}] for queue {posted.message.queue}"


_buffers = PerProcess()


def of(app: Any) -> PublishBuffer:
    """The app's buffer in this process.  What a parent process has in its own stays the parent's."""
    buffer: PublishBuffer = _buffers.get(app, PublishBuffer)
    return buffer


def close_all() -> None:
    """Empty the buffers of this process, which is about to end without Python's own farewell."""
    for pid, buffer in _buffers.all():
        if pid == os.getpid():
            buffer.close()
