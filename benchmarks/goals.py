"""What Celeriac set out to reach, and whether this run reached it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.outcome import Outcome
from benchmarks.systems import PEERS


class Goal(NamedTuple):
    """One figure to reach."""

    what: str
    bound: float
    """At least this, or at most where :attr:`at_most` is set."""
    unit: str
    measured: Callable[[Outcome], float | None]
    at_most: bool = False

    def reached(self, value: float) -> bool:
        """Whether the value will do."""
        return value <= self.bound if self.at_most else value >= self.bound


def value(outcome: Outcome, case: Case, figure: str) -> float | None:
    return (outcome.figures(case) or {}).get(figure)


def quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def against(
    system: str, measure: str, figure: str, *, results: bool = False, own: str = "celeriac"
) -> Callable[[Outcome], float | None]:
    """Celeriac's figure divided by another system's, without added round-trip time."""
    return lambda outcome: quotient(
        value(outcome, Case(measure, own, results), figure), value(outcome, Case(measure, system, results), figure)
    )


def against_fastest_peer(outcome: Outcome) -> float | None:
    """Only when all peers were tried: the fastest of some says nothing."""
    cases = [Case("drain", peer.name) for peer in PEERS]
    if not set(cases) <= set(outcome.cases):
        return None
    fastest = max(value(outcome, case, "rate") or 0.0 for case in cases)
    return quotient(value(outcome, Case("drain", "celeriac"), "rate"), fastest)


def postgres_against_peers(outcome: Outcome) -> float | None:
    """With results, to the faster of two that keep none."""
    rates = [value(outcome, Case("drain", name), "rate") for name in ("procrastinate", "pgqueuer")]
    if None in rates:
        return None
    own_rate = value(outcome, Case("drain", "celeriac-postgres", results=True), "rate")
    return quotient(own_rate, max(rate or 0.0 for rate in rates))


def batch_against_delay(outcome: Outcome) -> float | None:
    return quotient(value(outcome, Case("send", "celeriac"), "many"), value(outcome, Case("send", "celery"), "each"))


def own(measure: str, figure: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: value(outcome, Case(measure, "celeriac"), figure)


GOALS = (
    Goal("drain, results off, to Celery prefork", 30, "times", against("celery", "drain", "rate")),
    Goal("drain, results off, to the fastest Python peer", 5, "times", against_fastest_peer),
    Goal("drain, results off, to the limit", 0.5, "times", against("limit", "drain", "rate")),
    Goal("drain, results on, to Celery prefork", 20, "times", against("celery", "drain", "rate", results=True)),
    Goal("delay() one at a time, to Celery", 3, "times", against("celery", "send", "each")),
    Goal("sent in batches, to Celery's delay()", 30, "times", batch_against_delay),
    Goal("enqueue to start, median, to Celery", 0.5, "times", against("celery", "steady", "p50"), at_most=True),
    Goal("enqueue to start, 99 %, to Celery", 0.5, "times", against("celery", "steady", "p99"), at_most=True),
    Goal("tasks of 10 ms CPU, of what the cores can do", 97, "%", own("cpu", "percent")),
    Goal("behind a slow task, burst", 50, "ms", own("slow-task", "burst"), at_most=True),
    Goal("behind a slow task, trickle", 50, "ms", own("slow-task", "trickle"), at_most=True),
    Goal("worker memory, growth with the queue", 10, "MiB", own("queued", "growth_mib"), at_most=True),
    Goal("worker memory, growth with the schedule", 10, "MiB", own("scheduled", "growth_mib"), at_most=True),
    Goal("idle worker, of a core", 1, "%", own("idle", "percent"), at_most=True),
    Goal(
        "SQLite, results off, to Celery on Redis", 1, "times", against("celery", "drain", "rate", own="celeriac-sqlite")
    ),
    Goal(
        "SQLite, results on, to Celery on Redis",
        1,
        "times",
        against("celery", "drain", "rate", results=True, own="celeriac-sqlite"),
    ),
    Goal(
        "SQLite, delay() one at a time, to Celery on Redis",
        1,
        "times",
        against("celery", "send", "each", own="celeriac-sqlite"),
    ),
    Goal(
        "PostgreSQL, results on, to the faster of Procrastinate and PgQueuer without results",
        3,
        "times",
        postgres_against_peers,
    ),
    Goal(
        "PostgreSQL, results on, to PgQueuer with results",
        3,
        "times",
        against("pgqueuer", "drain", "rate", results=True, own="celeriac-postgres"),
    ),
    Goal(
        "PostgreSQL results behind Redis, to Celery's db+postgresql",
        10,
        "times",
        against("celery-database", "drain", "rate", results=True, own="celeriac-results"),
    ),
    Goal(
        "RabbitMQ, drain, to Celery on RabbitMQ",
        10,
        "times",
        against("celery-rabbitmq", "drain", "rate", own="celeriac-rabbitmq"),
    ),
    Goal(
        "RabbitMQ, quorum queue, drain, to Celery on the same",
        10,
        "times",
        against("celery-rabbitmq-quorum", "drain", "rate", own="celeriac-rabbitmq-quorum"),
    ),
)


def print_goals(outcome: Outcome, console: Console) -> None:
    """A table of those that this run measured."""
    table = Table()
    for title in ("", "must reach", "measured", ""):
        table.add_column(title, justify="right" if title else "left")
    for goal in GOALS:
        measured = goal.measured(outcome)
        if measured is not None:
            bound = f"{'at most ' if goal.at_most else ''}{goal.bound:g} {goal.unit}"
            table.add_row(
                goal.what, bound, f"{measured:.3g} {goal.unit}", "reached" if goal.reached(measured) else "MISSED"
            )
    if table.row_count:
        console.print("\n[bold]Goals[/bold]")
        console.print(table)
