"""The tables: each figure absolute, and as a ratio to Celery prefork's of the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.outcome import Outcome
from benchmarks.systems import SYSTEMS

REFERENCE = "celery"

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

TITLES = {
    "drain": "Drain a backlog of trivial tasks",
    "send": "Send",
    "steady": "From sending to start, 50 tasks/s",
    "cpu": "Tasks of 10 ms CPU, 2 slots",
    "slow-task": "Short tasks while a slow one runs, 2 slots",
    "queued": "Worker memory with many messages in the queue",
    "scheduled": "Worker memory with many messages scheduled for later",
    "idle": "Idle workers",
}


def print_tables(outcome: Outcome, console: Console) -> None:
    """One table for each measure and condition."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in outcome.cases:
        groups.setdefault((case.measure, case.conditions), []).append(case)
    for (measure, conditions), cases in groups.items():
        console.print()
        console.print(_table(outcome, f"{TITLES[measure]} ({conditions})", cases))
    for reason in dict.fromkeys(filter(None, (_failure(outcome, case) for case in outcome.cases))):
        console.print(reason, markup=False, highlight=False)


def _failure(outcome: Outcome, case: Case) -> str | None:
    reason = outcome.failure(case)
    return f"n/a: {SYSTEMS[case.system].title}, {case.measure}: {reason}" if reason else None


def _table(outcome: Outcome, title: str, cases: list[Case]) -> Table:
    columns = [column for column in COLUMNS[cases[0].measure] if _any_has(outcome, cases, column.figure)]
    table = Table(title=title, title_justify="left", title_style="bold")
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
    own, reference = outcome.figures(case), outcome.figures(case._replace(system=REFERENCE))
    if own is None or reference is None or not own[column.figure] or not reference[column.figure]:
        return None
    better, worse = own[column.figure], reference[column.figure]
    return worse / better if column.lower_is_better else better / worse
