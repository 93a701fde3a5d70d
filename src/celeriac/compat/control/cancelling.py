"""Carries out cancellations: reads the log of orders, and brings running tasks to an end, first gently and then not."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery.worker import state as worker_state

from celeriac.compat.control.orders import Orders
from celeriac.compat.control.revoking import interrupt, kill_if_running, running_tasks
from celeriac.compat.long_work.orders import CancelLog, CancelOrder
from celeriac.engine.seats import SlotHandle
from celeriac.engine.supervisor import Supervisor

logger = logging.getLogger("celery.worker.control")

LOOK_SECONDS = 1.0
"""How often the log is looked at: one round trip each time, and how late a running task hears of it."""

STEP_SECONDS = 0.2
"""How often it is looked whether a task has ended that was told to."""

REMEMBER_SECONDS = 3600.0
"""How often everything is read again, because what a worker remembers of revoked tasks ends after three hours."""


class Ending(NamedTuple):
    """A running task on its way to its end."""

    slot: SlotHandle
    tag: int
    task_id: str
    grace: float
    next_step: float
    """When, by the monotonic clock."""
    step: int
    """0: it may stop by itself; 1: the exception was raised in it."""


class Canceller:
    """One worker's part in cancellation (a :class:`~celeriac.engine.loop.Duty`)."""

    name = "canceller"

    def __init__(self, log: CancelLog, orders: Orders, supervisor: Supervisor) -> None:
        self._log = log
        self._orders = orders
        self._supervisor = supervisor
        self._read_to: int | None = None
        self._look_at = 0.0
        self._remember_at = time.monotonic() + REMEMBER_SECONDS
        self._endings: list[Ending] = []

    def run_once(self) -> float:
        """Read what is new, and take the next step with what has not ended."""
        now = time.monotonic()
        if now >= self._remember_at:
            self._read_to, self._remember_at = None, now + REMEMBER_SECONDS
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._read_to, orders = self._log.read(self._read_to)
            self.obey(orders)
        self._endings = [after for each in self._endings if (after := self._step(each)) is not None]
        return STEP_SECONDS if self._endings else max(0.05, self._look_at - time.monotonic())

    def keep(self, task_ids: Sequence[str]) -> None:
        """Write down a revocation that came from a client of Celery's, unless another worker already has."""
        self._read_to, orders = self._log.read(self._read_to)
        self.obey(orders)
        fresh = tuple(str(task_id) for task_id in task_ids if str(task_id) not in worker_state.revoked)
        if fresh:
            self._log.append(CancelOrder(fresh))

    def obey(self, orders: list[CancelOrder]) -> None:
        """Let none of these tasks start; begin to end those that run."""
        if not orders:
            return
        self._orders.revoke([task_id for order in orders for task_id in order.task_ids])
        stopping = {task_id: order.grace for order in orders if order.stop for task_id in order.task_ids}
        if not stopping:
            return
        known, now = {each.task_id for each in self._endings}, time.monotonic()
        for task_id, (slot, tag) in running_tasks(self._supervisor).items():
            if task_id in stopping and task_id not in known:
                grace = stopping[task_id]
                logger.info("Cancelling task %s; it has %g s to stop by itself", task_id, grace)
                self._endings.append(Ending(slot, tag, task_id, grace, now + grace, 0))

    def _step(self, ending: Ending) -> Ending | None:
        if not any(entry.tag == ending.tag for entry in ending.slot.ledger.running()):
            return None
        if time.monotonic() < ending.next_step:
            return ending
        if ending.step == 0 or self._supervisor.settings.pool != "processes":
            logger.info("Task %s has not stopped by itself; it gets an exception", ending.task_id)
            interrupt(self._supervisor, ending.slot, ending.tag, "terminate")
            return ending._replace(step=1, next_step=time.monotonic() + max(ending.grace, 1.0))
        logger.warning("Task %s has not ended; its process is killed", ending.task_id)
        kill_if_running(ending.slot, ending.tag, "cancelled")
        return None


def any_cancellations(app: Any) -> bool:
    """Whether the app wants cancellations to last (``celeriac_durable_revokes``, on unless it says no)."""
    return app.conf.get("celeriac_durable_revokes", True) is not False
