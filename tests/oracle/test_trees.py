"""A random canvas does on Celeriac what it does on Celery.

``ORACLE_EXAMPLES=500`` looks for longer and at other trees each time; ``--hypothesis-seed=…`` repeats such a run.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.oracle.lab import OURS, STOCK
from tests.oracle.transcript import Transcript
from tests.oracle.trees import Grower, Tree, trees

EXAMPLES = int(os.environ.get("ORACLE_EXAMPLES", "0"))

ATTEMPTS = 3
"""Celery itself does not always do the same: which member of a group comes last is chance."""


def program(tree: Tree) -> Any:
    return lambda tasks, tag: Grower(tasks, tag).grow(tree).apply_async()


@given(plants=st.lists(trees, min_size=3, max_size=6))
@settings(
    max_examples=EXAMPLES or 12, derandomize=not EXAMPLES, deadline=None, database=None, print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip
def test_a_random_canvas_does_what_it_does_on_celery(run_all, plants):
    open_cases = {f"tree {place}": Case(tree) for place, tree in enumerate(plants)}
    for _ in range(ATTEMPTS):
        transcripts = run_all({name: program(case.tree) for name, case in open_cases.items()})
        for name, case in open_cases.items():
            case.add(transcripts[STOCK, STOCK, name], [transcripts[OURS, sender, name] for sender in (OURS, STOCK)])
        open_cases = {name: case for name, case in open_cases.items() if case.differences()}
        if not open_cases:
            return

    for name, case in open_cases.items():
        note(f"{name}: {case.tree}")
    assert {name: case.differences() for name, case in open_cases.items()} == {}


class Case:
    """A tree, and what became of it so far."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._expected: list[Transcript] = []
        self._seen: list[list[Transcript]] = [[], []]

    def add(self, expected: Transcript, seen: list[Transcript]) -> None:
        self._expected.append(expected)
        for all_of_one, one in zip(self._seen, seen, strict=True):
            all_of_one.append(one)

    def differences(self) -> list[list[str]]:
        """For each of our ways that was never one of Celery's, how the last differ."""
        strange = [ways for ways in self._seen if not any(self._is_known(way) for way in ways)]
        return [self._expected[-1].differences(ways[-1]) for ways in strange]

    def _is_known(self, way: Transcript) -> bool:
        return any(not expected.differences(way) for expected in self._expected)
