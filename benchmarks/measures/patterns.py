"""What each production pattern costs by itself: one process, one thread, around a body that does nothing.

A pattern's row has two figures: microseconds, waiting for the store included, and round trips.  For a policy that is entering and
leaving it; for a part in sending, one call more than a plain one's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases import Case, Effort
from benchmarks.site import Site, open_site
from benchmarks.systems import System
from celeriac import Breaker, Celery
from celeriac.compat import connect
from celeriac.compat.declaring import policies_of
from celeriac.message import Delivery
from celeriac.outcome import Outcome, State
from celeriac.policy import Call

CALLS_A_SECOND = 500
"""Of the time that sending is measured for."""

OUTCOME = Outcome(Delivery(1, "celery", b""), State.SUCCEEDED)


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    with open_site(results=case.results, rtt=case.rtt) as site:
        app = _app(system, site)
        figures, calls = {}, int(CALLS_A_SECOND * effort.send_seconds)
        for name, step, used in (
            ("idempotency", _policy(app, idempotency_key="{n}"), connect.key_values(app)),
            ("breaker", _policy(app, circuit_breaker=Breaker("b")), connect.key_values(app)),
            ("unique_done", _policy(app, unique=True), connect.key_values(app)),
            ("plain_send", _sender(app), connect.producer(app)),
            ("unique_send", _sender(app, unique=True), connect.producer(app)),
        ):
            step(0)
            before, started = used.round_trips, time.perf_counter()
            for n in range(1, calls + 1):
                step(n)
            figures[f"{name}_us"] = (time.perf_counter() - started) / calls * 1e6
            figures[f"{name}_round_trips"] = (used.round_trips - before) / calls
        connect.producer(app).close()
        connect.key_values(app).close()
    return figures


def _app(system: System, site: Site) -> Celery:
    url = site.near_url if system.on_redis else f"sqlite:///{site.directory}/patterns.sqlite3"
    return Celery("patterns", broker=url, backend=url, set_as_current=False)


def _task(app: Celery, options: dict[str, Any]) -> Any:
    def body(n: int) -> None: ...

    return app.task(body, name=f"patterns.{'_'.join(options) or 'plain'}", lazy=False, **options)


def _policy(app: Celery, **options: Any) -> Callable[[int], object]:
    task = _task(app, options)
    (policy,) = policies_of(app, task)

    def step(n: int) -> None:
        call = Call(task.name, f"id-{n}", [n], {}, "celery", {}, 0, redelivered=False, sent_args=[n])
        policy.enter(call)
        policy.leave(call, OUTCOME, None)

    return step


def _sender(app: Celery, **options: Any) -> Callable[[int], object]:
    delay: Callable[[int], object] = _task(app, {**options, "ignore_result": True}).delay
    return delay
