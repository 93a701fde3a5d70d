"""The worker's own HTTP endpoint: metrics and probes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celeriac.compat import connect
from celeriac.compat.patterns.circuit_breaker import breakers_of
from celeriac.engine.supervisor import Shutdown, Supervisor
from celeriac.errors import MissingExtra, StoreError
from celeriac.policies.breaking import read_all
from celeriac.telemetry.bus import Bus, bus
from celeriac.telemetry.health import Health
from celeriac.telemetry.http import Endpoint
from celeriac.telemetry.relay import receive
from celeriac.telemetry.views import SlotView, StoreView, StoreWatch, WorkerView, look_at_store


def store_look(app: Any, supervisor: Supervisor) -> Callable[[], StoreView]:
    """What looks at the broker and the circuit breakers of an app, over connections of its own."""
    broker = connect.open_broker(app)
    names = list(breakers_of(app))
    breakers = connect.open_key_values(app) if names else None

    def look() -> StoreView:
        view = look_at_store(broker, supervisor.queues.names)
        if breakers is None:
            return view
        try:
            _, states = read_all(breakers, names)
        except StoreError:  # another store than the broker may be away
            return view
        return replace(view, breakers=tuple((name, state.status.value) for name, state in states.items()))

    return look


class ReportingEndpoint:
    """Serves what the supervisor knows and what its slots report."""

    def __init__(self, worker: Any, supervisor: Supervisor) -> None:
        self._worker = worker
        self._supervisor = supervisor
        self._node = Bus()
        bus.subscribe(self._node.emit, in_children=False)
        supervisor.on_packet = lambda data: receive(data, self._node)
        self._store = StoreWatch(store_look(worker.app, supervisor))
        self._endpoint = Endpoint(
            worker.options.http_host, worker.options.http_port, health=self._health, exposition=self._exposition()
        )

    def _exposition(self) -> Any:
        try:
            from celeriac.telemetry.metrics import Metrics
        except MissingExtra:
            return None
        metrics = Metrics(self._view, self._store, registered=set(self._worker.app.tasks))
        self._node.subscribe(metrics, in_children=False)
        return metrics.exposition

    def start(self) -> None:
        """Listen."""
        self._endpoint.start()

    def stop(self) -> None:
        """Stop listening."""
        self._endpoint.stop()

    def _view(self) -> WorkerView:
        engine = self._worker.options.engine
        slots = tuple(
            SlotView(slot.pid, len(slot.ledger.running()), 0, slot.started_at) for slot in self._supervisor.roster.all()
        )
        ages = self._supervisor.loop_ages()
        return WorkerView(
            self._worker.hostname,
            self._supervisor.target * engine.slot_concurrency,
            slots,
            self._supervisor.queues.names,
            time.time() - ages["beat"],
        )

    def _health(self) -> Health:
        supervisor = self._supervisor
        slots = supervisor.roster.all()
        ages = supervisor.loop_ages()
        idle = any(slot.idle for slot in slots)
        return Health(
            started=supervisor.announced,
            stopping=supervisor.stopping is not Shutdown.NONE,
            loop_ages={
                name: age for name, age in ages.items() if name not in ("beat", "rescuer", "expirer", "key-expirer")
            },
            slots_alive=sum(slot.ready for slot in slots),
            slots_wanted=supervisor.target,
            broker_error=supervisor.broker_error,
            consuming_age=ages["doorbell"] if idle else None,
        )
