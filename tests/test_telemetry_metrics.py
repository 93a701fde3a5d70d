"""The Prometheus page, read as Prometheus reads it; and that it does not depend on the broker's health."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from celeriac.broker import Depth
from celeriac.errors import StoreUnavailable
from celeriac.outcome import DeadReason, State
from celeriac.telemetry import events
from celeriac.telemetry.events import (
    BatchSettled,
    BrokerBack,
    Event,
    EventsDropped,
    LeaseFenced,
    SlotExited,
    TaskDeadLettered,
    TaskFinished,
    TaskReceived,
    TaskRescued,
    TaskSent,
    TaskStarted,
)
from celeriac.telemetry.metrics import Metrics
from celeriac.telemetry.views import SlotView, StoreView, StoreWatch, WorkerView
from tests.helpers import wait_until

PAGE = Path(__file__).parent.parent / "docs" / "telemetry.md"
WORKER = WorkerView("celery@box", 4, (SlotView(11, 1, 5, 1.0), SlotView(12, 0, 2, 1.0)), ("mails",), 1234.5)
STORE = StoreView(
    (Depth("mails", 7, 3, 2, 1.5, parked=5), Depth("empty", 0, 0, 2, None)),
    leased=8,
    dead=2,
    breakers=(("smtp", "open"),),
)
STATES = ("closed", "open", "half-open")
TASK = {"task": "send", "queue": "mails", "name": "send", "queue_name": "mails"}
ONE_OF_EACH: tuple[Event, ...] = (
    TaskSent("send", "mails", "1"),
    TaskReceived("send", "mails", "1"),
    TaskStarted("send", "mails", "1", 1000.0, 0.3),
    TaskStarted("send", "mails", "2", 1000.0, -0.3),
    TaskStarted("send", "mails", "3", 1000.0, None),
    TaskFinished("send", "mails", "1", State.SUCCEEDED, 1000.0, 0.2),
    TaskFinished("send", "mails", "2", State.FAILED, 1000.0, 0.4, exception="ValueError"),
    TaskFinished("send", "mails", "3", State.EXPIRED, 1000.0, None),
    TaskDeadLettered("send", "mails", "2", DeadReason.FAILED, "ValueError: no"),
    TaskRescued("send", "mails", "4", "owner"),
    BatchSettled(2, 9, 9, 0.01),
    LeaseFenced("owner", 3),
    BrokerBack("redis://box", 2.0),
    SlotExited("s1", 11, "crashed", -9),
    SlotExited("s2", 12, "shutdown"),
    EventsDropped(6),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def worker() -> WorkerView:
    return WORKER


def samples(metrics: Metrics) -> Samples:
    _, body = metrics.exposition()
    return {(s.name, frozenset(s.labels.items())): s.value for family in families(body) for s in family.samples}


def families(page: bytes) -> list[Metric]:
    return list(text_string_to_metric_families(page.decode()))


def value(page: Samples, sample: str, /, **labels: str) -> float | None:
    return page.get((sample, frozenset(labels.items())))


def watch(view: StoreView = STORE) -> StoreWatch:
    return StoreWatch(lambda: view)


@pytest.fixture
def page() -> Samples:
    """The page of a worker to which one of each event has happened."""
    metrics = Metrics(worker, watch())
    for event in ONE_OF_EACH:
        metrics(event)
    return samples(metrics)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("celery_task_sent_total", 1),
        ("celery_task_received_total", 1),
        ("celery_task_started_total", 3),
        ("celery_task_succeeded_total", 1),
        ("celery_task_revoked_total", 1),
        ("celery_task_retried_total", 0),
        ("celery_task_rejected_total", 0),
        ("celery_task_rescued_total", 1),
        ("celery_task_runtime_seconds_count", 2),
        ("celery_task_runtime_seconds_sum", 0.6),
        ("celery_task_runtime_count", 2),
        ("celery_task_queue_wait_seconds_count", 2),
        ("celery_task_queue_wait_seconds_sum", 0.3),
    ],
)
def test_task_events_show_with_the_labels_of_the_blueprint_and_of_celery_exporter(
    page: Samples, name: str, expected: float
) -> None:
    assert value(page, name, **TASK) == pytest.approx(expected)


def test_failures_carry_the_class_and_dead_letters_the_reason(page: Samples) -> None:
    assert value(page, "celery_task_failed_total", **TASK, exception="ValueError") == 1
    assert value(page, "celery_task_dead_lettered_total", **TASK, reason="failed") == 1
    assert value(page, "celery_task_dead_lettered_total", **TASK, reason="poison") == 0


def test_buckets_are_cumulative_and_end_at_the_count(page: Samples) -> None:
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in page.items()
        if name == "celery_task_runtime_seconds_bucket"
    }

    assert [buckets[bound] for bound in (0.1, 0.25, 0.5, float("inf"))] == [0, 1, 2, 2]


def test_a_negative_wait_is_shown_as_zero_and_counted(page: Samples) -> None:
    assert value(page, "celery_clock_skew_total") == 1
    assert value(page, "celery_task_queue_wait_seconds_bucket", **TASK, le="0.005") == 1


def test_the_gauges_of_queues_come_from_the_broker(page: Samples) -> None:
    both = {"queue": "mails", "queue_name": "mails"}

    assert value(page, "celery_queue_length", **both) == 7
    assert value(page, "celery_queue_scheduled", **both) == 3
    assert value(page, "celery_queue_parked", **both) == 5
    assert value(page, "celery_queue_consumers", **both) == 2
    assert value(page, "celery_queue_oldest_message_age_seconds", queue="mails") == 1.5
    assert value(page, "celery_queue_oldest_message_age_seconds", queue="empty") is None
    assert value(page, "celery_queue_unacked", queue="_all") == 8
    assert value(page, "celery_dead_letter_messages", queue="_all") == 2
    assert value(page, "celery_active_consumer_count", queue_name="mails") == 2
    states = {state: value(page, "celery_circuit_breaker_state", breaker="smtp", state=state) for state in STATES}
    assert states == {"closed": 0, "open": 1, "half-open": 0}


def test_the_gauges_of_the_worker_come_from_its_own_state(page: Samples) -> None:
    name = {"worker": "celery@box"}

    assert value(page, "celery_worker_up", **name, hostname="box") == 1
    assert value(page, "celery_worker_tasks_active", **name, hostname="box") == 1
    assert value(page, "celery_worker_concurrency", **name) == 4
    assert value(page, "celery_worker_prefetched", **name) == 7
    assert value(page, "celery_worker_busy_ratio", **name) == 0.25
    assert value(page, "celery_worker_last_heartbeat_timestamp_seconds", **name) == 1234.5
    assert value(page, "celery_active_process_count", queue_name="mails") == 2


def test_engine_events_are_counted_per_worker(page: Samples) -> None:
    name = {"worker": "celery@box"}

    assert value(page, "celery_worker_child_restarts_total", **name, reason="crashed") == 1
    assert value(page, "celery_worker_child_restarts_total", **name, reason="shutdown") is None
    assert value(page, "celery_worker_broker_reconnects_total", **name) == 1
    assert value(page, "celery_worker_leases_fenced_total", **name) == 3
    assert value(page, "celery_worker_outcomes_settled_total", **name) == 9
    assert value(page, "celery_worker_settle_seconds_count", **name) == 2
    assert value(page, "celery_exporter_events_dropped_total") == 6


def test_without_compatibility_there_are_no_doubled_labels_and_families() -> None:
    metrics = Metrics(worker, watch(), exporter_compat=False)
    metrics(ONE_OF_EACH[0])

    page = samples(metrics)

    assert value(page, "celery_task_sent_total", task="send", queue="mails") == 1
    assert value(page, "celery_worker_up", worker="celery@box") == 1
    assert not {name for name, _ in page if name.startswith(("celery_active", "celery_task_runtime_count"))}


def test_unknown_tasks_share_one_label() -> None:
    metrics = Metrics(worker, registered={"send"})
    for number in range(100):
        metrics(TaskDeadLettered(f"invented-{number}", "mails", "id", DeadReason.UNKNOWN_TASK))

    names = {dict(labels).get("task") for _, labels in samples(metrics)}

    assert names - {None} == {"_unregistered"}


def test_the_openmetrics_format_is_spoken_to_who_asks_for_it() -> None:
    metrics = Metrics(worker, watch())
    for event in ONE_OF_EACH:
        metrics(event)

    content_type, body = metrics.exposition("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert "celery_queue_length" in {
        family.name
        for family in parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    }


# -- a broker in trouble -----------------------------------------------------------------------------------------------


def test_a_broker_that_is_down_leaves_the_workers_own_metrics_on_the_page() -> None:
    def down() -> StoreView:
        raise StoreUnavailable("connection refused")

    metrics = Metrics(worker, StoreWatch(down))
    metrics(ONE_OF_EACH[0])

    page = samples(metrics)

    assert value(page, "celery_exporter_scrape_success") == 0
    assert value(page, "celery_task_sent_total", **TASK) == 1
    assert value(page, "celery_worker_up", worker="celery@box", hostname="box") == 1
    assert not {name for name, _ in page if name.startswith("celery_queue_")}


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Set it to let a hanging store answer."""
    release = threading.Event()
    yield release
    release.set()


def test_a_broker_that_hangs_delays_one_scrape_by_the_patience_and_the_next_not_at_all(stuck: threading.Event) -> None:
    def hang() -> StoreView:
        stuck.wait(30)
        return STORE

    metrics = Metrics(worker, StoreWatch(hang, patience=1.0))
    started = time.monotonic()
    first = samples(metrics)
    between = time.monotonic()
    second = samples(metrics)
    ended = time.monotonic()

    assert value(first, "celery_exporter_scrape_success") == value(second, "celery_exporter_scrape_success") == 0
    assert 1.0 <= between - started < 5
    assert ended - between < 1.0


def test_the_last_values_are_shown_while_the_broker_hangs_and_new_ones_when_it_answers(stuck: threading.Event) -> None:
    views = iter([StoreView((Depth("mails", 1, 0, 0, None),), 0, 0), StoreView((Depth("mails", 2, 0, 0, None),), 0, 0)])
    hanging = threading.Event()

    def look() -> StoreView:
        if hanging.is_set():
            stuck.wait(30)
        hanging.set()
        return next(views)

    store = StoreWatch(look, patience=0.2, fresh=0.0)
    before = store.read()
    during = store.read()
    stuck.set()
    wait_until(lambda: _ready(store) == 2)

    assert before.ok
    assert before.view is not None
    assert during.view == before.view
    assert not during.ok


def _ready(store: StoreWatch) -> int:
    view = store.read().view
    return view.queues[0].ready if view else 0


def test_many_scrapers_cost_the_broker_one_look() -> None:
    looks: list[float] = []

    def look() -> StoreView:
        looks.append(time.monotonic())
        return STORE

    store = StoreWatch(look, fresh=60)
    scrapers = [threading.Thread(target=store.read) for _ in range(8)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()

    assert len(looks) == 1
    assert store.read().ok


def test_a_worker_state_that_cannot_be_read_does_not_take_the_counters_away() -> None:
    def broken() -> WorkerView:
        raise RuntimeError("half started")

    metrics = Metrics(broken, watch())
    metrics(ONE_OF_EACH[0])

    page = samples(metrics)

    assert value(page, "celery_task_sent_total", **TASK) == 1
    assert value(page, "celery_exporter_scrape_success") == 0


def test_without_the_extra_the_error_has_the_pip_line() -> None:
    script = "import sys; sys.modules['prometheus_client.core'] = None; import celeriac.telemetry.metrics"

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert "MissingExtra" in run.stderr
    assert "pip install 'celeriac[metrics]'" in run.stderr


# -- the page in the documentation -------------------------------------------------------------------------------------


def test_the_documentation_names_every_event_and_every_measure() -> None:
    rows = {line.split("|")[1].strip(): line for line in PAGE.read_text().splitlines() if line.startswith("| `")}

    for kind in events.EVENTS:
        row = rows[f"`{kind.__name__}`"]
        assert [field for field in kind._fields if f"`{field}`" not in row] == []


def test_every_class_of_the_contract_is_an_event_and_has_a_docstring() -> None:
    classes = {thing for thing in vars(events).values() if isinstance(thing, type) and hasattr(thing, "_fields")}

    assert classes == set(events.EVENTS)
    assert [kind.__name__ for kind in classes if not (kind.__doc__ or "").strip().endswith((".", "`."))] == []


def test_the_documentation_names_every_metric_with_its_type_and_no_other() -> None:
    metrics = Metrics(worker, watch())
    for event in ONE_OF_EACH:
        metrics(event)
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `celery_")]
    documented = {(row[1].strip(" `"), row[2].strip()) for row in rows}

    shown = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for family in families(metrics.exposition()[1])
    }

    assert documented == shown
