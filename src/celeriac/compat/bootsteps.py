"""Bootsteps of apps: what Celery starts and stops with a worker (``app.steps['worker']``) or its consumer (``['consumer']``).

A worker's steps are given the worker.  A consumer's steps are given a kombu connection of their own, in a thread of their own, and
are started anew when that connection breaks, as in Celery: so a ``ConsumerStep`` can consume whatever it likes beside the tasks.

Steps may require Celery's own ones; these are there in one form or another before any step is started.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.utils.imports import symbol_by_name
from celery.utils.timer2 import Timer

from celeriac.compat.control.facade import Consumer

logger = logging.getLogger("celery.worker.consumer")

CELERYS_OWN = ("celery.worker.", "celery.events.", "celery.concurrency.")

WAIT_SECONDS = 1.0
"""Longest single wait, so that stopping does not take longer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between tries to reach a broker that is away."""


class OwnSteps(bootsteps.Blueprint):
    """An app's steps without Celery's."""

    def _firstpass(self, steps: dict[str, Any]) -> None:
        for step in steps.values():
            required = (_name(each) for each in step.requires)
            step.requires = tuple(symbol_by_name(name) for name in required if not name.startswith(CELERYS_OWN))
        super()._firstpass(steps)


def _name(step: Any) -> str:
    return step if isinstance(step, str) else f"{step.__module__}.{step.__name__}"


class WorkerSteps:
    """The steps of a worker."""

    def __init__(self, worker: Any, options: dict[str, Any]) -> None:
        """Makes them.  ``options``: the worker's, which their constructors are given."""
        self._worker = worker
        self._blueprint = OwnSteps(steps=worker.app.steps["worker"], name="Worker")
        worker.steps, worker.blueprint = [], self._blueprint
        if self._blueprint.types:
            self._blueprint.apply(worker, **options)

    def start(self) -> None:
        """Start them, in the order of what they require."""
        self._blueprint.start(self._worker)

    def stop(self) -> None:
        """Stop them in the reverse order."""
        cold = self._worker.supervisor.cut_off
        self._blueprint.stop(self._worker, terminate=cold)


class StepConsumer(Consumer):
    """What a consumer's steps are given as Celery's consumer: :class:`~celeriac.compat.control.facade.Consumer` and a
    ``connection``.
    """

    connection: Any = None

    def __init__(self, worker: Any, dispatcher: Any) -> None:
        super().__init__(worker, dispatcher)
        self.steps: list[Any] = []
        self.timer = Timer()

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """A connection to the broker."""
        return self.app.connection_for_read(heartbeat=heartbeat)

    def connection_for_write(self, heartbeat: float | None = None) -> Any:
        """A connection to the broker."""
        return self.app.connection_for_write(heartbeat=heartbeat)


class ConsumerSteps:
    """The steps of a consumer, in a thread where there are any."""

    def __init__(self, worker: Any, options: dict[str, Any]) -> None:
        self._app = worker.app
        self._worker = worker
        self._options = options
        self._ended = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="celeriac-steps", daemon=True)
        self._wanted = bool(worker.app.steps["consumer"])
        self._consumer: Any = None

    def start(self) -> None:
        """Make them, and start the thread."""
        if self._wanted:
            self._consumer = StepConsumer(self._worker, lambda: self._worker.remote.dispatcher)
            blueprint = self._consumer.blueprint = OwnSteps(steps=self._app.steps["consumer"], name="Consumer")
            blueprint.apply(self._consumer, **self._options)
            self._thread.start()

    def stop(self) -> None:
        """Stop them, and end the thread."""
        self._ended.set()
        if self._wanted:
            self._thread.join(2 * WAIT_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._serve()
            except Exception as error:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
                logger.warning("The consumer's steps are started again in %.1f s: %r", pause, error)
                self._failures += 1
                self._ended.wait(pause)

    def _serve(self) -> None:
        """Run the steps on one connection until it breaks or the worker stops."""
        consumer, blueprint = self._consumer, self._consumer.blueprint
        with self._app.connection_for_read() as connection:
            consumer.connection = connection
            connection.connect()
            blueprint.start(consumer)
            try:
                self._failures = 0
                while not self._ended.is_set():
                    with suppress(socket.timeout):
                        connection.drain_events(timeout=WAIT_SECONDS)
            finally:
                blueprint.send_all(consumer, "stop", propagate=False)
                if self._ended.is_set():
                    blueprint.send_all(consumer, "shutdown", propagate=False)
