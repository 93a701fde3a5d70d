"""Keeps messages of Amazon SQS away from others for as long as they are held: a long task needs no long visibility timeout."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celeriac.compat.through_kombu.leases import Held, Leases

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
        held.message.channel.qos.ack(
            held.message.delivery_tag
        )  # the channel forgets it; the message stays in its queue

    def _run(self) -> None:
        while not self._ended.wait(min([*self._timeouts.values(), FALLBACK]) / 3):
            for held in self._leases.unacknowledged():
                try:
                    self._change(held, self._timeouts.get(held.message.delivery_info["sqs_queue"], FALLBACK))
                except Exception as error:
                    logger.warning("A message of %s may be delivered twice: %s", held.delivery.queue, error)

    def learn(self, channel: Any, queue: str) -> None:
        """Ask for a queue's own visibility timeout."""
        url = channel._resolve_queue_url(queue)
        client = channel.sqs(queue=channel.canonical_queue_name(queue))
        asked = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        self._timeouts[url] = max(3, int(asked["Attributes"].get("VisibilityTimeout", FALLBACK)))

    @staticmethod
    def _change(held: Held, seconds: int) -> None:
        info, channel = held.message.delivery_info, held.message.channel
        channel.sqs(queue=channel.canonical_queue_name(held.delivery.queue)).change_message_visibility(
            QueueUrl=info["sqs_queue"], ReceiptHandle=info["sqs_message"]["ReceiptHandle"], VisibilityTimeout=seconds
        )
