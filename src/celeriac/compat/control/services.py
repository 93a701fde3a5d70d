"""Everything by which a worker can be seen and steered from afar: put together, started and stopped as one."""

from __future__ import annotations

import logging
from typing import Any

from celery.utils.nodenames import node_format
from celery.worker import state as worker_state

from celeriac.compat.control.facade import Consumer, State
from celeriac.compat.control.listener import RemoteControl
from celeriac.compat.control.orders import Orders
from celeriac.compat.events import TaskEvents, WorkerEvents
from celeriac.telemetry.bus import Bus

logger = logging.getLogger("celery.worker")

HEARTBEAT_SECONDS = 2.0
"""Celery's."""


class RemoteServices:
    """Remote control, heartbeats and the supervisor's task events of one worker.

    Made before the slots are forked, so that they share :attr:`orders`; :meth:`start` is called after that.
    """

    def __init__(self, worker: Any, bus: Bus, given: dict[str, Any]) -> None:
        """``given``: the worker's keyword arguments."""
        app = worker.app
        self._worker = worker
        self._statedb = node_format(given.get("statedb") or app.conf.worker_state_db, worker.hostname)
        self.orders = Orders(app, TaskEvents(app, worker.hostname, bus, wanted=worker.options.task_events))
        interval = (
            None if given.get("without_heartbeat") else float(given.get("heartbeat_interval") or HEARTBEAT_SECONDS)
        )
        self._heart = WorkerEvents(app, worker.hostname, interval, self._count)
        self._control: RemoteControl | None = None
        if self._statedb:
            worker_state.Persistent(worker_state, self._statedb, app.clock).close()
        self.orders.prepare()

    def _count(self) -> tuple[int, int]:
        """Tasks that run, and tasks that were started so far."""
        active = sum(len(slot.ledger.running()) for slot in self._worker.supervisor.roster.all())
        return active, sum(self.orders.counts.totals().values())

    def start(self) -> None:
        """Start what the app's settings allow."""
        worker = self._worker
        self.orders.serve(worker.supervisor.roster)
        if self.orders.events.wanted:
            self.orders.events.switch(True)
        self._heart.start()
        if worker.app.conf.worker_enable_remote_control:
            consumer = Consumer(worker, lambda: self._heart.dispatcher)
            state = State(worker.app, worker.hostname, consumer, self.orders, self._heart.beat)
            self._control = RemoteControl(state)
            self._control.start()

    def stop(self) -> None:
        """Say good-bye, and keep what was revoked (``--statedb``)."""
        if self._control is not None:
            self._control.stop()
        self.orders.events.close()
        self._heart.stop()
        if self._statedb:
            try:
                worker_state.Persistent(worker_state, self._statedb, self._worker.app.clock).save()
            except OSError as error:
                logger.error("The revoked tasks could not be kept in %s: %s", self._statedb, error)
