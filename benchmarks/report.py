"""The tables: each figure absolute, and as a ratio to Celery prefork's of the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.outcome import Outcome
from benchmarks.patterns import PATTERNS
from benchmarks.systems import SYSTEMS

REFERENCE = "celery"
OTHER_REFERENCES = {"celeriac-rabbitmq": "celery-rabbitmq", "celery-rabbitmq": "celery-rabbitmq"}
"""Systems that are compared with Celery on another broker."""

Format = Callable[[float], str]


def whole(value: float) -> str:
    return f"{value:,.0f}"


def fine(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Column(NamedTuple):
    """One figure of a measure."""

    figure: str
    title: str
    format: Format = fine
    ratio: bool = False
    """Whether the ratio to Celery prefork says something."""
    lower_is_better: bool = False


COLUMNS: dict[str, tuple[Column, ...]] = {
    "drain": (
        Column("rate", "tasks/s", whole, ratio=True),
        Column("cpu_us", "worker CPU, µs/task"),
        Column("round_trips", "round trips/task"),
        Column("commands", "Redis commands/task"),
    ),
    "send": (
        Column("each", "one at a time, messages/s", whole, ratio=True),
        Column("many", "in bulk, messages/s", whole, ratio=True),
        Column("each_round_trips", "round trips each"),
        Column("many_round_trips", "round trips in bulk"),
    ),
    "steady": (
        Column("p50", "median, ms", ratio=True, lower_is_better=True),
        Column("p99", "99 %, ms", ratio=True, lower_is_better=True),
        Column("longest", "longest, ms"),
    ),
    "cpu": (
        Column("percent", "% of two bare processes"),
        Column("rate", "tasks/s"),
        Column("bare", "bare, tasks/s"),
    ),
    "slow-task": (
        Column("burst", "overtaken for up to, ms"),
        Column("trickle", "longest wait, ms"),
        Column("trickle_p99", "99 %, ms"),
    ),
    "queued": (
        Column("messages", "messages", whole),
        Column("base_mib", "before, MiB"),
        Column("growth_mib", "growth, MiB"),
        Column("per_message", "bytes/message"),
    ),
    "idle": (
        Column("percent", "% of a core"),
        Column("commands", "Redis commands/s"),
        Column("mib", "memory, MiB"),
    ),
}
COLUMNS["scheduled"] = COLUMNS["queued"]
COLUMNS.update(
    dict.fromkeys(
        (f"pattern {name}" for name in PATTERNS),
        (
            Column("send_us", "more to send, µs"),
            Column("send_round_trips", "round trips"),
            Column("run_us", "more to run, µs"),
            Column("run_round_trips", "round trips"),
            Column("work_ratio", "throughput to plain"),
            Column("plain_send_us", "plain: send, µs"),
            Column("plain_run_us", "run, µs"),
        ),
    )
)

TITLES = {
    "drain": "Drain a backlog of trivial tasks",
    "send": "Send",
    "steady": "From sending to start, 50 tasks/s",
    "cpu": "Tasks of 10 ms CPU, 2 slots",
    "slow-task": "Short tasks while a slow one runs, 2 slots",
    "queued": "Worker memory with many messages in the queue",
    "scheduled": "Worker memory with many messages scheduled for later",
    "idle": "Idle workers",
    **{f"pattern {name}": pattern.title for name, pattern in PATTERNS.items()},
}


def print_tables(outcome: Outcome, console: Console) -> None:
    """One table for each measure and condition."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in outcome.cases:
        groups.setdefault((case.measure, case.conditions), []).append(case)
    for (measure, conditions), cases in groups.items():
        if not any(map(outcome.figures, cases)):
            continue
        console.print(f"\n[bold]{TITLES[measure]}[/bold] ({conditions})", highlight=False)
        console.print(_table(outcome, cases))
    _print_failures(outcome, console)


def _print_failures(outcome: Outcome, console: Console) -> None:
    """Each reason once, though it may have kept many cases from being measured."""
    reasons: dict[str, list[str]] = {}
    for case, reason in outcome.failures.items():
        reasons.setdefault(f"{SYSTEMS[case.system].title}: {reason}", []).append(f"{case.measure} ({case.conditions})")
    for reason, measures in reasons.items():
        console.print(f"\nFailed: {reason}\n  in {', '.join(measures)}", markup=False, highlight=False, soft_wrap=True)


def _table(outcome: Outcome, cases: list[Case]) -> Table:
    columns = [column for column in COLUMNS[cases[0].measure] if _any_has(outcome, cases, column.figure)]
    table = Table()
    table.add_column("")
    for column in columns:
        table.add_column(column.title, justify="right")
        if column.ratio:
            table.add_column("to Celery", justify="right")
    for case in _in_order(cases):
        table.add_row(SYSTEMS[case.system].title, *_cells(outcome, case, columns))
    return table


def _any_has(outcome: Outcome, cases: Iterable[Case], figure: str) -> bool:
    return any(figure in (outcome.figures(case) or {}) for case in cases)


def _in_order(cases: list[Case]) -> list[Case]:
    order = list(SYSTEMS)
    return sorted(cases, key=lambda case: order.index(case.system))


def _cells(outcome: Outcome, case: Case, columns: Iterable[Column]) -> list[str]:
    cells = []
    for column in columns:
        value = (outcome.figures(case) or {}).get(column.figure)
        cells.append("n/a" if value is None else column.format(value))
        if column.ratio:
            ratio = to_reference(outcome, case, column)
            cells.append("" if ratio is None else f"{ratio:.3g}")
    return cells


def to_reference(outcome: Outcome, case: Case, column: Column) -> float | None:
    """How many times better than Celery prefork under the same conditions."""
    own, reference = (
        outcome.figures(case),
        outcome.figures(case._replace(system=OTHER_REFERENCES.get(case.system, REFERENCE))),
    )
    if own is None or reference is None or not own[column.figure] or not reference[column.figure]:
        return None
    better, worse = own[column.figure], reference[column.figure]
    return worse / better if column.lower_is_better else better / worse
