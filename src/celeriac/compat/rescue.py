"""A rescuer outside a worker, for commands."""

from __future__ import annotations

from typing import Any

from celery.utils.nodenames import default_nodename

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.options import worker_options
from celeriac.compat.runner import CeleryRunner
from celeriac.engine.outbox import Settler
from celeriac.engine.rescuer import Rescuer
from celeriac.telemetry.bus import Bus


def open_rescuer(app: Any, broker: Broker) -> Rescuer:
    """A rescuer that judges by the app's tasks, as a worker of this app would."""
    hostname = default_nodename("celeriac")
    app.loader.import_default_modules()
    app.finalize()
    bus = Bus()
    settings = worker_options(app, hostname, {}).engine
    runner = CeleryRunner(app, hostname, bus, max_crashes=settings.max_crashes)
    settler = Settler(broker, connect.open_backend(app), runner, lambda: connect.key_values(app))
    return Rescuer(broker, settler, runner, settings, bus)
