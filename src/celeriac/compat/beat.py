"""Celery's beat inside the worker (``-B``)."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.beat import EmbeddedService

from celeriac.compat.periodic.choice import scheduler_class


class EmbeddedBeat:
    """Runs the app's beat schedule in a thread.  With this package's scheduler every worker may do so; one of them leads."""

    def __init__(self, app: Any, schedule_filename: str | None, scheduler: str | None) -> None:
        self._service = EmbeddedService(
            app, thread=True, schedule_filename=schedule_filename, scheduler_cls=scheduler_class(app, scheduler)
        )

    def start(self) -> None:
        """Start the thread, and say so as Celery does of its process."""
        signals.beat_embedded_init.send(sender=self._service.service)
        self._service.start()

    def stop(self) -> None:
        """End it."""
        self._service.stop()
