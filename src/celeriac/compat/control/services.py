"""Everything by which a worker can be seen and steered from afar: put together, started and stopped as one."""

from __future__ import annotations

import logging
from typing import Any

from celery.utils.nodenames import node_format
from celery.worker import state as worker_state

from celeriac.compat import connect
from celeriac.compat.control.cancelling import Canceller, any_cancellations
from celeriac.compat.control.facade import Consumer, State
from celeriac.compat.control.listener import RemoteControl
from celeriac.compat.control.orders import Orders, set_rate_limits
from celeriac.compat.events import TaskEvents, WorkerEvents
from celeriac.compat.long_work.orders import CancelLog
from celeriac.compat.rate_limits import Buckets
from celeriac.engine.loop import Loop
from celeriac.errors import ConfigurationError, StoreError
from celeriac.telemetry.bus import Bus

logger = logging.getLogger("celery.worker")

RATE_LIMITS_KEY = "celeriac_rate_limits"
"""In the state file, beside Celery's own keys."""

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
        events = TaskEvents(app, worker.hostname, bus, wanted=worker.options.task_events)
        self.orders = Orders(app, events, Buckets(app.tasks))
        interval = (
            None if given.get("without_heartbeat") else float(given.get("heartbeat_interval") or HEARTBEAT_SECONDS)
        )
        self._heart = WorkerEvents(app, worker.hostname, interval, self._count)
        self._control: RemoteControl | None = None
        self._cancelling: Loop | None = None
        self.consumer = Consumer(worker, lambda: self.dispatcher)
        """What commands and receivers of ``worker_ready`` are given as Celery's consumer."""
        if self._statedb:
            self._restore()
        self.orders.prepare()

    @property
    def dispatcher(self) -> Any:
        """Celery's event dispatcher of this process, while there is a connection."""
        return self._heart.dispatcher

    @property
    def pool(self) -> Any:
        """See :class:`~celeriac.compat.control.facade.Pool`."""
        return self.consumer.pool

    def _restore(self) -> None:
        """What was revoked and which rate limits were set before this worker was started again."""
        kept = worker_state.Persistent(worker_state, self._statedb, self._worker.app.clock)
        self.orders.rate_limits = dict(kept.db.get(RATE_LIMITS_KEY) or {})
        set_rate_limits(self._worker.app, self.orders.rate_limits)
        kept.close()

    def _save(self) -> None:
        try:
            kept = worker_state.Persistent(worker_state, self._statedb, self._worker.app.clock)
            kept.db[RATE_LIMITS_KEY] = self.orders.rate_limits
            kept.save()
        except OSError as error:
            logger.error("The revoked tasks could not be kept in %s: %s", self._statedb, error)

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
        self._start_cancelling()
        if not self._can_broadcast():
            logger.info("Remote control and heartbeats are off: this broker cannot send to all workers at once")
            return
        self._heart.start()
        if worker.app.conf.worker_enable_remote_control:
            state = State(worker.app, worker.hostname, self.consumer, self.orders, self._heart.beat)
            self._control = RemoteControl(state, worker.options.engine.wait_seconds)
            self._control.start()

    def _can_broadcast(self) -> bool:
        """Whether the transport has exchanges that reach everybody, as Celery's own worker asks it."""
        with self._worker.app.connection_for_read() as connection:
            return bool(connection.supports_exchange_type("fanout"))

    def _start_cancelling(self) -> None:
        """Have cancellations last and reach what runs here, where there is a store to keep them."""
        app = self._worker.app
        if not any_cancellations(app):
            return
        try:
            log = CancelLog(connect.open_key_values(app))
        except ConfigurationError as error:
            logger.info("Revocations reach only workers that are there when they are sent: %s", error)
            return
        canceller = Canceller(log, self.orders, self._worker.supervisor)
        try:
            canceller.run_once()  # before anything is started
        except StoreError as error:
            logger.warning("What was revoked before cannot be read yet: %s", error)
        self.orders.keep = canceller.keep
        self._cancelling = Loop(canceller)
        self._cancelling.start()

    def end(self) -> None:
        """Take no more commands, without waiting."""
        if self._control is not None:
            self._control.end()

    def stop(self) -> None:
        """Say good-bye, and keep what was revoked (``--statedb``)."""
        if self._control is not None:
            self._control.stop()
        if self._cancelling is not None:
            self._cancelling.end()
        self.orders.events.close()
        self._heart.stop()
        if self._statedb:
            self._save()
