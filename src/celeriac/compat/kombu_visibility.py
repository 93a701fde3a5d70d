"""Keeps messages of Amazon SQS away from others for as long as they are held: a long task needs no long visibility timeout."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celeriac.compat.kombu_leases import Held, Leases

logger = logging.getLogger("celeriac.engine")

LONGEST = 12 * 3600 - 60
"""Seconds: SQS hides a message for twelve hours at most, from when it was received."""

FALLBACK = 30
"""Seconds: what a queue has by default, where it does not say."""


class Visibility:
    """Extends the visibility timeout of all that a slot holds, in a thread of its own."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._timeouts: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start extending."""
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, name="celeriac-visibility", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop it."""
        self._ended.set()
        self._thread = None

    def hide(self, held: Held, seconds: float) -> None:
        """Have the queue give a message away again in so many seconds, to whoever comes first."""
        self._change(held, max(0, min(int(seconds + 0.999), LONGEST)))

    def _run(self) -> None:
        while not self._ended.wait(min([*self._timeouts.values(), FALLBACK]) / 3):
            for held in self._leases.unacknowledged():
                try:
                    self._change(held, self._timeout(held))
                except Exception as error:
                    logger.warning("A message of %s may be delivered twice: %s", held.delivery.queue, error)

    def _timeout(self, held: Held) -> int:
        """The queue's own visibility timeout, in seconds."""
        queue_url = held.message.delivery_info["sqs_queue"]
        found = self._timeouts.get(queue_url)
        if found is None:
            asked = _client(held).get_queue_attributes(QueueUrl=queue_url, AttributeNames=["VisibilityTimeout"])
            found = self._timeouts[queue_url] = max(3, int(asked["Attributes"].get("VisibilityTimeout", FALLBACK)))
        return found

    @staticmethod
    def _change(held: Held, seconds: int) -> None:
        info = held.message.delivery_info
        _client(held).change_message_visibility(
            QueueUrl=info["sqs_queue"], ReceiptHandle=info["sqs_message"]["ReceiptHandle"], VisibilityTimeout=seconds
        )


def _client(held: Held) -> Any:
    channel = held.message.channel
    return channel.sqs(queue=channel.canonical_queue_name(held.delivery.queue))
