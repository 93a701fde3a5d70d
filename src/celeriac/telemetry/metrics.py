"""Prometheus metrics: counters fed by the bus, gauges looked up when they are scraped.

Needs the extra ``metrics``; importing this module without it raises :class:`~celeriac.errors.MissingExtra`.

Names and labels are those that existing dashboards and alerts use.  One family cannot have two sets of labels, so the
task families carry ``name`` and ``queue_name`` beside ``task`` and ``queue``, with the same values: that is how
celery-exporter calls them.  Gauges of the broker are the same on every worker: aggregate them with ``max by (queue)``,
never with ``sum``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import accumulate

from celeriac.errors import MissingExtra
from celeriac.outcome import DeadReason
from celeriac.telemetry.events import BrokerBack, Event, EventsDropped, LeaseFenced, SlotExited
from celeriac.telemetry.tally import COUNTERS, Histogram, LabelCap, Row, Tally
from celeriac.telemetry.views import StoreView, StoreWatch, WorkerView

try:
    from prometheus_client.core import (
        CollectorRegistry,
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
    from prometheus_client.exposition import choose_encoder
except ImportError as error:
    raise MissingExtra("The Prometheus endpoint /metrics", "metrics") from error

logger = logging.getLogger(__name__)

ALL_QUEUES = "_all"
"""Value of ``queue`` where the broker only tells a sum over all of them."""

NOT_REPLACED = frozenset({"shutdown", "scaled_down"})
"""Reasons for a slot's exit after which no other takes its place."""

_QUEUE = ("queue", "queue_name")
_BREAKER_STATES = ("closed", "open", "half-open")
_TASK = ("task", "queue")
_HELP = {
    "sent": "Messages that this worker's processes sent",
    "received": "Messages leased",
    "started": "Task bodies started",
    "succeeded": "Tasks that succeeded",
    "retried": "Tasks that asked to be retried",
    "rejected": "Tasks that rejected their message",
    "revoked": "Tasks revoked or expired before they ran, or revoked while they ran",
    "ignored": "Tasks that ended without a result",
    "snoozed": "Tasks put off without counting an attempt",
    "interrupted": "Tasks interrupted by a shutdown and handed back",
    "rescued": "Tasks put back into their queue after their process died",
}


class Metrics:
    """The metrics of one worker.  Subscribe it to a bus with ``in_children=False``.

    Args:
        worker: tells the worker's own state from memory; called at each scrape.
        store: looks at the broker; ``None`` leaves the queue gauges out.
        registered: names of the app's tasks; other names are shown as ``_unregistered``.
        exporter_compat: also show what only celery-exporter's dashboards use (``celery_task_runtime``,
            ``celery_active_*_count``, and ``name``, ``queue_name``, ``hostname`` labels).
    """

    def __init__(
        self,
        worker: Callable[[], WorkerView],
        store: StoreWatch | None = None,
        *,
        registered: Container[str] | None = None,
        exporter_compat: bool = True,
    ) -> None:
        self._worker = worker
        self._store = store
        self._compat = exporter_compat
        self._tally = Tally(registered)
        self._restarts: dict[str, int] = {}
        self._reason = LabelCap(limit=50)
        self._reconnects = self._fenced = self._dropped = 0
        # Reentrant: a signal handler may emit in the thread that is just being served.
        self._lock = threading.RLock()
        self.registry = CollectorRegistry()
        """For collectors of your own that shall appear on the same page."""
        self.registry.register(self)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            if not self._tally.add(event):
                self._count(event)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """The page for Prometheus: its content type and its bytes.

        Args:
            accept: the request's ``Accept`` header, which chooses between the plain text and the OpenMetrics format.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus-client asks for them."""
        started = time.monotonic()
        reading = self._store.read() if self._store else None
        view, worker_ok = self._look_at_worker()
        with self._lock:
            families = [*self._task_families(), *self._event_families(view)]
        yield from families
        if view is not None:
            yield from self._worker_families(view)
        if reading is not None and reading.view is not None:
            yield from self._queue_families(reading.view, view)
        yield from _scrape_families(worker_ok and (reading is None or reading.ok), time.monotonic() - started)

    # -- events ----------------------------------------------------------------------------------------------------

    def _count(self, event: Event) -> None:
        if isinstance(event, SlotExited):
            self._count_exit(event)
        elif isinstance(event, BrokerBack):
            self._reconnects += 1
        elif isinstance(event, LeaseFenced):
            self._fenced += event.outcomes
        elif isinstance(event, EventsDropped):
            self._dropped += event.events

    def _count_exit(self, event: SlotExited) -> None:
        if event.reason not in NOT_REPLACED:
            reason = self._reason(event.reason)
            self._restarts[reason] = self._restarts.get(reason, 0) + 1

    # -- per task --------------------------------------------------------------------------------------------------

    def _task_labels(self) -> tuple[str, ...]:
        return (*_TASK, "name", "queue_name") if self._compat else _TASK

    def _task_values(self, task: str, queue: str) -> tuple[str, ...]:
        return (task, queue, task, queue) if self._compat else (task, queue)

    def _task_families(self) -> Iterator[Metric]:
        rows = [(self._task_values(task, queue), row) for task, queue, row in self._tally.rows()]
        yield from self._counter_families(rows)
        yield self._labelled_counter("failed", "Runs that failed for good", "exception", rows, lambda row: row.failed)
        yield self._labelled_counter("dead_lettered", "Messages given up", "reason", rows, _dead_letters)
        yield from self._histogram_families(rows)
        skews = sum(row.skews for _, row in rows)
        yield _total("celery_clock_skew", "Negative times in queue, shown as 0: clocks of machines disagree", skews)

    def _counter_families(self, rows: Iterable[tuple[tuple[str, ...], Row]]) -> Iterator[Metric]:
        for index, name in enumerate(COUNTERS):
            family = CounterMetricFamily(f"celery_task_{name}", _HELP[name], labels=self._task_labels())
            for labels, row in rows:
                family.add_metric(labels, row.counts[index])
            yield family

    def _labelled_counter(
        self,
        name: str,
        text: str,
        label: str,
        rows: Iterable[tuple[tuple[str, ...], Row]],
        counts: Callable[[Row], dict[str, int]],
    ) -> Metric:
        family = CounterMetricFamily(f"celery_task_{name}", text, labels=(*self._task_labels(), label))
        for labels, row in rows:
            for value, count in counts(row).items():
                family.add_metric((*labels, value), count)
        return family

    def _histogram_families(self, rows: Sequence[tuple[tuple[str, ...], Row]]) -> Iterator[Metric]:
        labels = self._task_labels()
        ran = [(values, row.ran) for values, row in rows]
        waited = [(values, row.waited) for values, row in rows]
        yield _histogram("celery_task_runtime_seconds", "Run time of task bodies, however they ended", labels, ran)
        yield _histogram("celery_task_queue_wait_seconds", "From sent, or due, until started", labels, waited)
        if self._compat:
            yield _histogram("celery_task_runtime", "As celery_task_runtime_seconds", labels, ran)

    # -- the worker ------------------------------------------------------------------------------------------------

    def _look_at_worker(self) -> tuple[WorkerView | None, bool]:
        try:
            return self._worker(), True
        except Exception:
            logger.exception("The worker's state could not be read for a scrape")
            return None, False

    def _event_families(self, view: WorkerView | None) -> Iterator[Metric]:
        batches = self._tally.batches
        yield _total("celery_exporter_events_dropped", "Events that slots could not hand over", self._dropped)
        if view is None:
            return
        worker = (view.worker,)
        restarts = CounterMetricFamily(
            "celery_worker_child_restarts", "Slot processes that were replaced, by reason", labels=("worker", "reason")
        )
        for reason, count in self._restarts.items():
            restarts.add_metric((view.worker, reason), count)
        yield restarts
        yield _worker_total("broker_reconnects", "Times a process reached the broker again", worker, self._reconnects)
        yield _worker_total("leases_fenced", "Outcomes refused because the lease was lost", worker, self._fenced)
        yield _worker_total("outcomes_settled", "Outcomes settled", worker, batches.outcomes)
        settle = SummaryMetricFamily(
            "celery_worker_settle_seconds", "Round trips that settle and lease", labels=("worker",)
        )
        settle.add_metric(worker, batches.batches, batches.settle_seconds)
        yield settle

    def _worker_families(self, view: WorkerView) -> Iterator[Metric]:
        busy = sum(slot.active for slot in view.slots)
        yield self._worker_gauge("up", "Whether the worker has a living slot", view, bool(view.slots), compat=True)
        yield self._worker_gauge("tasks_active", "Tasks that are running", view, busy, compat=True)
        yield self._worker_gauge("concurrency", "Tasks that can run at once", view, view.concurrency)
        prefetched = sum(slot.prefetched for slot in view.slots)
        yield self._worker_gauge("prefetched", "Messages held unstarted", view, prefetched)
        ratio = busy / view.concurrency if view.concurrency else 0.0
        yield self._worker_gauge("busy_ratio", "Running tasks per possible ones, at this moment", view, ratio)
        if view.heartbeat_at is not None:
            text = "When the worker last kept its leases alive"
            yield self._worker_gauge("last_heartbeat_timestamp_seconds", text, view, view.heartbeat_at)
        if self._compat:
            yield from _exporter_worker_families(view)

    def _worker_gauge(self, name: str, text: str, view: WorkerView, value: float, *, compat: bool = False) -> Metric:
        labels, values = ("worker",), (view.worker,)
        if compat and self._compat:
            return _gauge(
                f"celery_worker_{name}", text, ("worker", "hostname"), [((view.worker, _hostname(view)), value)]
            )
        return _gauge(f"celery_worker_{name}", text, labels, [(values, value)])

    # -- the broker ------------------------------------------------------------------------------------------------

    def _queue_families(self, store: StoreView, worker: WorkerView | None) -> Iterator[Metric]:
        queues = [((depth.queue, depth.queue), depth) for depth in store.queues]
        yield _gauge("celery_queue_length", "Ready messages", _QUEUE, [(key, depth.ready) for key, depth in queues])
        scheduled = [(key, depth.scheduled) for key, depth in queues]
        yield _gauge("celery_queue_scheduled", "Messages whose time has not come", _QUEUE, scheduled)
        parked = [(key, depth.parked) for key, depth in queues]
        yield _gauge("celery_queue_parked", "Messages that a limit keeps waiting beside the queue", _QUEUE, parked)
        consumers = [(key, depth.consumers) for key, depth in queues]
        yield _gauge("celery_queue_consumers", "Live owners that serve the queue", _QUEUE, consumers)
        ages = [((depth.queue,), depth.oldest_age) for depth in store.queues if depth.oldest_age is not None]
        yield _gauge("celery_queue_oldest_message_age_seconds", "Wait of the next message", ("queue",), ages)
        unacked = [((ALL_QUEUES,), store.leased)]
        yield _gauge("celery_queue_unacked", "Leased messages, all workers", ("queue",), unacked)
        yield _gauge("celery_dead_letter_messages", "Dead letters kept", ("queue",), [((ALL_QUEUES,), store.dead)])
        text = "1 for the state that the breaker is in, for all workers"
        yield _gauge("celery_circuit_breaker_state", text, ("breaker", "state"), _breaker_samples(store))
        if self._compat:
            counts = [((depth.queue,), depth.consumers) for depth in store.queues]
            yield _gauge("celery_active_consumer_count", "As celery_queue_consumers", ("queue_name",), counts)


def _breaker_samples(store: StoreView) -> list[tuple[tuple[str, str], float]]:
    """With zeros for the states that a breaker is not in, so that a change of state is one in the graph."""
    return [((name, state), float(state == status)) for name, status in store.breakers for state in _BREAKER_STATES]


def _exporter_worker_families(view: WorkerView) -> Iterator[Metric]:
    workers = [((queue,), 1.0 if view.slots else 0.0) for queue in view.queues]
    processes = [((queue,), len(view.slots)) for queue in view.queues]
    yield _gauge("celery_active_worker_count", "This worker, on the queues it serves", ("queue_name",), workers)
    yield _gauge("celery_active_process_count", "Its slots, on the queues it serves", ("queue_name",), processes)


def _scrape_families(success: bool, seconds: float) -> Iterator[Metric]:
    text = "1, or 0 when the broker did not answer this scrape: its gauges are then old or absent"
    yield _gauge("celery_exporter_scrape_success", text, (), [((), float(success))])
    yield _gauge("celery_exporter_scrape_duration_seconds", "Duration of this scrape", (), [((), seconds)])


def _dead_letters(row: Row) -> dict[str, int]:
    """With zeros, so that the first dead letter is an increase and sets off an alert."""
    return {reason.value: 0 for reason in DeadReason} | row.dead


def _hostname(view: WorkerView) -> str:
    """What celery-exporter calls the host: what follows the ``@``."""
    return view.worker.rpartition("@")[2]


def _gauge(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], float | None]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _total(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=())
    family.add_metric((), value)
    return family


def _worker_total(name: str, text: str, worker: tuple[str], value: float) -> Metric:
    family = CounterMetricFamily(f"celery_worker_{name}", text, labels=("worker",))
    family.add_metric(worker, value)
    return family


def _histogram(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
        family.add_metric(values, buckets, sum_value=histogram.total)
    return family
