"""Celery's events, for Flower, ``celery events`` and exporters: of the worker from the supervisor, of tasks from the slots.

Task events cost nothing while they are off.  While they are on, each process hears of its tasks by Celery's own signals and
sends what it heard in batches, from a thread of its own.  A slot sends what came of a task only when that is settled, so that
nobody hears of a success that a crash could still undo.  A slot that is killed takes what it had not sent with it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.events.event import get_exchange
from celery.exceptions import Reject
from celery.utils.saferepr import saferepr
from celery.utils.sysinfo import load_average
from celery.utils.time import utcoffset
from celery.worker.state import SOFTWARE_INFO
from kombu import Producer
from kombu.utils.encoding import safe_str

from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import BatchSettled, Event

logger = logging.getLogger("celery.events")

GATHER_SECONDS = 0.1
"""How long events gather before they are sent.  Shorter costs a round trip more often; longer makes monitors lag."""

MOST_IN_A_BATCH = 500
MOST_WAITING = 10_000
"""Events that a process keeps for a broker that is away or slow; beyond it the oldest are dropped."""

LONGEST_PAUSE = 10.0
"""Seconds between tries to reach a broker that is away."""

FLUSH_SECONDS = 2.0
"""How long a process that ends may take to send its last events."""


class TaskEvents:
    """The task events of one process."""

    def __init__(self, app: Any, hostname: str, bus: Bus, *, wanted: bool) -> None:
        """``wanted``: whether they are to be sent from the start (``-E``)."""
        self.wanted = wanted
        self.active = False
        self._app = app
        self._hostname = hostname
        self._bus = bus
        self._in_slot = False
        self._settled: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._unsettled: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._wake = threading.Event()
        self._switching = threading.Lock()
        self._sender: Sender | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    # -- on and off ------------------------------------------------------------------------------------------------

    def enter_slot(self) -> None:
        """This process is a slot: what comes of tasks waits until it is settled."""
        self._in_slot = True

    def switch(self, on: bool) -> None:
        """Send task events, or stop.  Does nothing when it is so already."""
        with self._switching:
            self.wanted = on
            if on and not self.active:
                self._start()
            elif not on and self.active:
                self._stop()

    def _start(self) -> None:
        self.active = True
        for signal, handler in self._handlers():
            signal.connect(handler, weak=False, dispatch_uid=f"celeriac-events-{id(self)}")
        self._unsubscribe = self._bus.subscribe(self._on_bus, in_children=False)
        self._sender = Sender(self._app, self._settled, self._wake)
        self._sender.start()

    def _stop(self) -> None:
        self.active = False
        for signal, _ in self._handlers():
            signal.disconnect(dispatch_uid=f"celeriac-events-{id(self)}")
        self._unsubscribe()
        self.release()
        if self._sender is not None:
            self._sender.stop()

    def close(self) -> None:
        """Send what is left, and stop."""
        with self._switching:
            if self.active:
                self._stop()

    def _handlers(self) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (signals.task_prerun, self._on_start),
            (signals.task_success, self._on_success),
            (signals.task_failure, self._on_failure),
            (signals.task_postrun, self._on_end),
            (signals.task_retry, self._on_retry),
            (signals.task_revoked, self._on_revoked),
            (signals.task_unknown, self._on_unknown),
        ]

    def _on_bus(self, event: Event) -> None:
        if isinstance(event, BatchSettled) and self._unsettled:
            self.release()

    def release(self) -> None:
        """What has come together is settled: it may be sent."""
        for _ in range(len(self._unsettled)):
            self._settled.append(self._unsettled.popleft())
        self._wake.set()

    # -- what happens to tasks -------------------------------------------------------------------------------------

    def received(self, job: Any) -> None:
        """A slot has taken a task from its queue.  (A rescuer reads messages as well, which is not receiving them.)"""
        if not (self.active and self._in_slot and job.plan.task.send_events):
            return
        headers = job.headers
        self._add(
            "task-received",
            job.task_id,
            name=headers.get("shadow") or job.name,
            args=headers.get("argsrepr"),
            kwargs=headers.get("kwargsrepr"),
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries") or 0,
            eta=headers.get("eta"),
            expires=headers.get("expires"),
        )

    def _on_start(self, sender: Any = None, task_id: str = "", **_: Any) -> None:
        if sender.send_events:
            self._add("task-started", task_id)

    def _on_success(self, sender: Any = None, result: Any = None, runtime: float | None = None, **_: Any) -> None:
        if sender.send_events:
            text = saferepr(result, sender.resultrepr_maxsize)
            self._finish("task-succeeded", sender.request.id, result=text, runtime=runtime)

    def _on_failure(
        self, sender: Any = None, task_id: str = "", exception: Any = None, einfo: Any = None, **_: Any
    ) -> None:
        if not sender.send_events:
            return
        trace = safe_str(einfo.traceback) if einfo is not None else None
        self._finish("task-failed", task_id, exception=saferepr(exception), traceback=trace)

    def _on_end(self, sender: Any = None, task_id: str = "", retval: Any = None, **_: Any) -> None:
        if isinstance(retval, Reject) and sender.send_events and (retval.requeue or sender.acks_late):
            self._finish("task-rejected", task_id, requeue=bool(retval.requeue))

    def _on_retry(
        self, sender: Any = None, request: Any = None, reason: Any = None, einfo: Any = None, **_: Any
    ) -> None:
        if sender.send_events:
            cause = getattr(reason, "exc", None)
            trace = safe_str(einfo.traceback) if einfo is not None else None
            self._finish("task-retried", request.id, exception=saferepr(cause), traceback=trace)

    def _on_revoked(
        self, sender: Any = None, request: Any = None, terminated: bool = False, signum: Any = None,
        expired: bool = False, **_: Any,
    ) -> None:  # fmt: skip
        if sender.send_events:
            self._finish("task-revoked", request.id, terminated=terminated, signum=signum, expired=expired)

    def _on_unknown(self, name: str = "", id: str = "", **_: Any) -> None:
        if self._in_slot:
            self._finish("task-failed", id, exception=f"NotRegistered({name!r})")

    # -- to the sender ---------------------------------------------------------------------------------------------

    def _add(self, kind: str, task_id: str, **fields: Any) -> None:
        self._settled.append(self._event(kind, task_id, fields))
        if not self._wake.is_set():
            self._wake.set()

    def _finish(self, kind: str, task_id: str, **fields: Any) -> None:
        if self._in_slot:
            self._unsettled.append(self._event(kind, task_id, fields))
        else:
            self._add(kind, task_id, **fields)

    def _event(self, kind: str, task_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": kind,
            "uuid": task_id,
            **fields,
            "hostname": self._hostname,
            "pid": os.getpid(),
            "clock": self._app.clock.forward(),
            "timestamp": time.time(),
            "utcoffset": utcoffset(),
        }


class Sender:
    """Sends events from a queue, in batches, on one connection; what cannot be sent is tried again."""

    def __init__(self, app: Any, events: deque[dict[str, Any]], wake: threading.Event) -> None:
        self._app = app
        self._events = events
        self._wake = wake
        self._ended = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="celeriac-events", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is left and end; waits for that up to 2 s."""
        self._ended.set()
        self._wake.set()
        self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        while not (self._ended.is_set() and (not self._events or self._failures)):
            try:
                self._serve()
            except Exception as error:
                self._pause(error)

    def _serve(self) -> None:
        with self._app.connection_for_write() as connection:
            exchange = get_exchange(connection, name=self._app.conf.event_exchange)
            producer = Producer(
                connection.channel(), exchange=exchange, serializer=self._app.conf.event_serializer, auto_declare=False
            )
            while not self._ended.is_set() or self._events:
                self._wake.wait()
                self._wake.clear()
                self._ended.wait(GATHER_SECONDS)
                while self._events:
                    self._send(producer, exchange)

    def _send(self, producer: Any, exchange: Any) -> None:
        batch = [self._events.popleft() for _ in range(min(len(self._events), MOST_IN_A_BATCH))]
        try:
            producer.publish(
                batch, routing_key="task.multi", declare=[exchange], headers={"hostname": batch[0]["hostname"]},
                delivery_mode=1, retry=False,
            )  # fmt: skip
        except Exception:
            self._events.extendleft(reversed(batch))
            self._wake.set()
            raise
        self._failures = 0

    def _pause(self, error: Exception) -> None:
        level = logging.DEBUG if self._failures else logging.WARNING
        logger.log(level, "Task events cannot be sent (%s). Trying again", error)
        self._failures += 1
        self._ended.wait(min(LONGEST_PAUSE, 0.5 * 2 ** min(self._failures, 10)))


class WorkerEvents:
    """Tells monitors that this worker is there: online, a heartbeat every few seconds, offline."""

    def __init__(self, app: Any, hostname: str, interval: float | None, counts: Callable[[], tuple[int, int]]) -> None:
        """``interval``: seconds between heartbeats; ``None`` sends nothing.  ``counts``: tasks that run, and tasks so far."""
        self.dispatcher: Any = None
        """Celery's, while there is a connection."""
        self._app = app
        self._hostname = hostname
        self._interval = interval
        self._counts = counts
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="celeriac-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._interval is not None:
            self._thread.start()

    def stop(self) -> None:
        """Say that the worker goes, and end."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(FLUSH_SECONDS)

    def beat(self) -> None:
        """Send a heartbeat at once, from the thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._serve()
            except Exception as error:
                self._pause(error)
            finally:
                self.dispatcher = None

    def _serve(self) -> None:
        with self._app.connection_for_write() as connection, self._dispatcher(connection) as dispatcher:
            self.dispatcher = dispatcher
            self._send(dispatcher, "worker-online")
            self._failures = 0
            while not self._ended.is_set():
                self._wake.wait(self._interval)
                self._wake.clear()
                self._send(dispatcher, "worker-offline" if self._ended.is_set() else "worker-heartbeat")

    def _dispatcher(self, connection: Any) -> Any:
        return self._app.events.Dispatcher(
            connection, hostname=self._hostname, groups=["worker"], buffer_while_offline=False
        )

    def _send(self, dispatcher: Any, kind: str) -> None:
        active, processed = self._counts()
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)
        dispatcher.send(
            kind, freq=self._interval, active=active, processed=processed, loadavg=load_average(), **SOFTWARE_INFO
        )

    def _pause(self, error: Exception) -> None:
        level = logging.DEBUG if self._failures else logging.WARNING
        logger.log(level, "Heartbeats cannot be sent (%s). Trying again", error)
        self._failures += 1
        self._ended.wait(min(LONGEST_PAUSE, 0.5 * 2 ** min(self._failures, 10)))
