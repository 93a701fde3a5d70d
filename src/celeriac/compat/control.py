"""Remote control: what ``celery inspect`` and ``celery control`` ask a worker."""

from __future__ import annotations

from typing import Any


class RemoteControl:
    """Answers the app's control mailbox."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def start(self) -> None:
        """Start listening."""

    def stop(self) -> None:
        """Stop listening."""
