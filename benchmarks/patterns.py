"""What a production pattern costs a task: ``python -m benchmarks.patterns PATTERN URL COUNT [STATE-URL]`` prints figures as JSON.

A task with the pattern and one without are sent one at a time, and run by the worker's own runner in this process, in turns of a few
hundred.  The figures are the differences; a message is not leased and an outcome not settled, which is the same for both.  Then both
are leased in batches, run and settled as a slot does it, and the figure is the ratio of the two throughputs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kombu import Queue
from pydantic import BaseModel

import celeriac
from celeriac.compat import connect
from celeriac.compat.collect import Collector, collecting
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.compat.periodic.sending import TICKS
from celeriac.compat.runner import CeleryRunner
from celeriac.message import Delivery
from celeriac.outcome import Outcome
from celeriac.telemetry.bus import Bus

TURNS = 9
PLAIN = "plain"

Turn = tuple[tuple[float, float], tuple[float, float]]
"""With the pattern and without: microseconds and round trips of each."""


class Order(BaseModel):
    id: int
    name: str
    price: float
    tags: list[str]
    express: bool = False


def order(number: int) -> Order:
    return Order(id=number, name="tea", price=9.9, tags=["a", "b"])


class Pattern(NamedTuple):
    """How to use a pattern."""

    title: str
    options: Mapping[str, Any] = {}
    args: Callable[[int], tuple[Any, ...]] = lambda n: (n,)
    plain_args: Callable[[int], tuple[Any, ...]] = lambda n: (n,)
    """The same for a task without the pattern."""
    annotation: Any = int
    body: Callable[..., Any] | None = None
    """What the task does, where that is part of the pattern."""
    leased: bool = False
    """Whether its part is in leasing: then leasing and settling are measured, too."""
    runs: bool = True
    """Whether running can be measured by itself: not where it settles what sending has claimed."""


def report_progress(self: Any, value: Any) -> None:  # noqa: ARG001 - what a message has
    """Reports are written now and then only: of ten quick ones the first and the last."""
    for done in range(10):
        self.progress(done, 10)


PERIODIC = "periodic"

PATTERNS: Mapping[str, Pattern] = {
    "payload": Pattern(
        "A typed payload of five fields",
        annotation=Order,
        args=lambda n: (order(n),),
        plain_args=lambda n: (order(n).model_dump(),),
    ),
    "retries": Pattern("Rules for retries", {"retries": celeriac.Retry.exponential(1, times=5), "retry_for": 3600}),
    "idempotency": Pattern("An idempotency key", {"idempotency_key": "bench:{value}"}),
    "unique": Pattern("A unique task", {"unique": "until_started"}, runs=False),
    "circuit-breaker": Pattern("A circuit breaker", {"circuit_breaker": "bench"}),
    "limits": Pattern(
        "A rate for the whole cluster", {"limits": celeriac.Limit("1000000/s", burst=1_000_000)}, leased=True
    ),
    "progress": Pattern("Ten reports of progress in each run", {"bind": True}, body=report_progress),
    PERIODIC: Pattern("A tick of a periodic task, over sending its task by hand", runs=False),
    "bounded-queue": Pattern("A bounded queue", {"queue": "bounded"}, runs=False),
}
"""One for each pattern that costs something when nothing goes wrong."""


class Bench:
    """Tasks of one app, one with a pattern and one without."""

    def __init__(self, url: str, state_url: str | None = None) -> None:
        """``state_url``: of results and shared state, where the broker keeps none."""
        self.app = celeriac.Celery("bench", broker=url, backend=state_url or url)
        self.app.conf.celeriac_queue_full = "raise"
        self.app.conf.task_queues = [Queue("celery"), Queue("bounded", max_length=10_000_000)]
        self.runner = CeleryRunner(self.app, "bench@host", Bus())
        self._numbers = iter(range(10**9))
        self._tag = 0

    def declare(self, name: str, pattern: Pattern) -> Any:
        def plain(value: Any) -> None: ...

        body = pattern.body or plain
        body.__annotations__ = {"value": pattern.annotation}
        task = self.app.task(name=name, shared=False, ignore_result=True, **pattern.options)(body)
        assert task.name == name
        return task

    def send(self, task: Any, pattern: Pattern, count: int) -> tuple[float, float]:
        """Microseconds and round trips for each."""
        sent = [pattern.args(next(self._numbers)) for _ in range(count)]
        before, began = self._round_trips(), time.perf_counter()
        for args in sent:
            task.apply_async(args)
        took = time.perf_counter() - began
        return took / count * 1e6, (self._round_trips() - before) / count

    def run(self, task: Any, pattern: Pattern, count: int) -> tuple[float, float]:
        """The same for running."""
        with collecting(Collector()) as collector:
            for _ in range(count):
                task.apply_async(pattern.args(next(self._numbers)))
        deliveries = [self._delivery(message.raw) for message in collector.publish]
        before, began = self._round_trips(), time.perf_counter()
        for delivery in deliveries:
            job = self.runner.prepare(delivery)
            assert not isinstance(job, Outcome), job
            outcome = self.runner.run(job)
            assert outcome.dead is None, outcome.dead
        took = time.perf_counter() - began
        return took / count * 1e6, (self._round_trips() - before) / count

    def work(self, task: Any, pattern: Pattern, count: int) -> tuple[float, float]:
        """Microseconds and round trips for each message that is leased, let in, run and settled, as a slot does it."""
        owner, broker = f"bench:{next(self._numbers)}", connect.open_broker(self.app)
        queues = [pattern.options.get("queue", "celery")]
        broker.register(owner, queues, 60)
        gate = self.runner.gate(owner, broker, sequential=True) if pattern.leased else None
        with self.app.batch():
            for _ in range(count):
                task.apply_async(pattern.args(next(self._numbers)))
        stores = (broker, connect.passing_key_values(self.app), connect.key_values(self.app))
        before, began = sum(each.round_trips for each in stores), time.perf_counter()
        outcomes: list[Outcome] = []
        done = 0
        while done < count:
            _, leased = broker.turn(owner, outcomes, queues, 100)
            outcomes = []
            admitted = gate.lease(queues, 100) if gate else []
            for delivery, permit in [*((each, None) for each in leased), *admitted]:
                job = self.runner.prepare(delivery, permit)
                if not isinstance(job, Outcome):
                    job, done = self.runner.run(job), done + 1
                outcomes.append(job)
                if permit is not None:
                    permit.end()
        broker.settle(owner, outcomes)
        took = time.perf_counter() - began
        trips = sum(each.round_trips for each in stores) - before
        broker.unregister(owner)
        broker.close()
        return took / count * 1e6, trips / count

    def empty(self) -> None:
        """Leave nothing of what was sent."""
        broker = connect.producer(self.app)
        for queue in ("celery", "bounded"):
            broker.purge(queue)

    def tick(self, task: Any, count: int) -> tuple[float, float]:
        """Microseconds and round trips for each tick that a scheduler finds due, sends and remembers."""
        self.app.conf.beat_schedule = {"bench": {"task": task.name, "schedule": 1.0, "args": (1,), "missed": "run"}}
        scheduler = StoreScheduler(self.app)
        now, _ = scheduler.store.read(TICKS, [])
        stores = (scheduler.store, connect.producer(self.app))
        took, trips = 0.0, 0
        for number in range(count):
            last = now - 1.5 + number * 1e-3  # each has a name of its own
            scheduler.states.change("bench", lambda state, last=last: replace(state, last=last))  # type: ignore[misc]
            before, began = sum(each.round_trips for each in stores), time.perf_counter()
            scheduler.run_due()
            took += time.perf_counter() - began
            trips += sum(each.round_trips for each in stores) - before
        assert scheduler.sent >= count, scheduler.sent
        scheduler.close()
        return took / count * 1e6, trips / count

    def _delivery(self, raw: bytes) -> Delivery:
        self._tag += 1
        return Delivery(self._tag, "celery", raw)

    def _round_trips(self) -> int:
        return connect.producer(self.app).round_trips + connect.key_values(self.app).round_trips


def measure(name: str, url: str, count: int, state_url: str | None = None) -> dict[str, float]:
    """The pattern's own cost."""
    bench = Bench(url, state_url)
    pattern = PATTERNS[name]
    plain = Pattern(PLAIN, args=pattern.plain_args)
    tasks = bench.declare(name, pattern), bench.declare(PLAIN, plain)
    bench.runner.on_slot_start(0)
    figures: dict[str, float] = {}

    def compare(own: Callable[[], tuple[float, float]], other: Callable[[], tuple[float, float]]) -> list[Turn]:
        return [(own(), other()) for _ in range(TURNS)][1:]

    def note(kind: str, turns: list[Turn]) -> None:
        figures[f"{kind}_us"] = statistics.median(own[0] - other[0] for own, other in turns)
        figures[f"{kind}_round_trips"] = statistics.median(own[1] - other[1] for own, other in turns)
        figures[f"plain_{kind}_us"] = statistics.median(other[0] for _, other in turns)

    def send_plain() -> tuple[float, float]:
        return bench.send(tasks[1], plain, count)

    if name == PERIODIC:
        note("send", compare(lambda: bench.tick(tasks[0], count // 4), send_plain))
        return figures
    note("send", compare(lambda: bench.send(tasks[0], pattern, count), send_plain))
    bench.empty()
    if pattern.runs and not pattern.leased:
        note("run", compare(lambda: bench.run(tasks[0], pattern, count), lambda: bench.run(tasks[1], plain, count)))
    works = compare(lambda: bench.work(tasks[0], pattern, count), lambda: bench.work(tasks[1], plain, count))
    if pattern.leased:
        note("run", works)
    figures["work_ratio"] = statistics.median(other[0] / own[0] for own, other in works)
    return figures


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])) + "\n")
