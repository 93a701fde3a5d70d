"""Measure one case after the other; what cannot be measured is named, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console

from benchmarks.cases import Case, Effort
from benchmarks.environments import prepare
from benchmarks.measures import MEASURES
from benchmarks.outcome import Figures, Outcome
from benchmarks.report import COLUMNS, Column
from benchmarks.running import verify
from benchmarks.systems import SYSTEMS


class Runner:
    """One run of the benchmark."""

    def __init__(self, cases: list[Case], effort: Effort, outcome: Outcome, console: Console) -> None:
        self._cases = cases
        self._effort = effort
        self._outcome = outcome
        self._console = console
        self._broken: dict[str, str] = {}
        self._started = time.monotonic()
        self._done = 0

    def run(self) -> None:
        """Everything once, then everything again: what drifts on the machine drifts for all."""
        self._prepare()
        for repetition in range(self._effort.repeats):
            for case in self._cases:
                if repetition < self._effort.repeats_of(case):
                    self._measure(case)

    def _prepare(self) -> None:
        for name in dict.fromkeys(case.system for case in self._cases):
            title = SYSTEMS[name].title
            with self._console.status(f"Preparing {title}: every task must run once"):
                try:
                    prepare(SYSTEMS[name])
                    self._outcome.describe(SYSTEMS[name])
                    for results in sorted({case.results for case in self._cases if case.system == name}):
                        verify(SYSTEMS[name], results=results)
                except Exception as error:  # a system that does not run here is named, not a failure
                    self._broken[name] = _one_line(error)
                    self._say(f"{title} is n/a: {self._broken[name]}")

    def _measure(self, case: Case) -> None:
        self._done += 1
        if case.system in self._broken:
            self._outcome.fail(case, self._broken[case.system])
            return
        label = f"{case.measure} · {case.conditions} · {SYSTEMS[case.system].title}"
        with self._console.status(f"{self._progress()} {label}"):
            try:
                figures = MEASURES[case.measure](SYSTEMS[case.system], case, self._effort)
            except Exception as error:  # likewise
                self._outcome.fail(case, _one_line(error))
                self._say(f"{self._progress()} {label}: n/a: {_one_line(error)}")
                return
        self._outcome.add(case, figures)
        self._say(f"{self._progress()} {label}: {_summary(case, figures)}")

    def _progress(self) -> str:
        total = sum(map(self._effort.repeats_of, self._cases))
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"[{self._done}/{total} {minutes}:{seconds:02}]"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(case: Case, figures: Figures) -> str:
    columns: Iterable[Column] = (column for column in COLUMNS[case.measure] if column.figure in figures)
    return "; ".join(f"{column.title} {column.format(figures[column.figure])}" for column in columns)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
