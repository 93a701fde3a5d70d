"""Tells receivers of ``task_unknown`` and ``task_rejected`` of messages that no task was found for."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from celeriac.compat.envelope import decode
from celeriac.compat.worker_request import kombu_message
from celeriac.message import Delivery
from celeriac.outcome import DeadReason

logger = logging.getLogger("celery.worker.consumer")


def announce_refused(
    sender: Any, delivery: Delivery, reason: DeadReason, error: BaseException, headers: dict[str, Any] | None
) -> None:
    """Send the signal, if anybody listens."""
    unknown = reason is DeadReason.UNKNOWN_TASK
    signal = signals.task_unknown if unknown else signals.task_rejected
    if not signal.receivers:
        return
    about = {"name": (headers or {}).get("task"), "id": (headers or {}).get("id")} if unknown else {}
    signal.send(sender=sender, message=_message(delivery), exc=error, **about)


def _message(delivery: Delivery) -> Any:
    """The message as kombu has it, or its bytes when it is none."""
    try:
        envelope = decode(delivery.raw)
        return kombu_message(envelope, envelope.get("headers") or {})
    except Exception:
        return delivery.raw
