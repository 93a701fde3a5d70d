"""What is measured, one file each.  A measure takes a system and a case and returns named figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.cases import Case, Effort
from benchmarks.measures import cpu, drain, idle, memory, patterns, sending, slow_task, steady
from benchmarks.patterns import PATTERNS
from benchmarks.systems import System

__all__ = ["MEASURES", "Measure"]

Measure = Callable[[System, Case, Effort], dict[str, float]]

MEASURES: Mapping[str, Measure] = {
    "drain": drain.measure,
    "send": sending.measure,
    "steady": steady.measure,
    "cpu": cpu.measure,
    "slow-task": slow_task.measure,
    "queued": memory.measure_queued,
    "scheduled": memory.measure_scheduled,
    "idle": idle.measure,
    **{f"pattern {name}": patterns.measure_of(name) for name in PATTERNS},
}
