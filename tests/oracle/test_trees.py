"""Random canvas: chains, groups and chords in one another, of tasks that succeed, fail, retry and ignore."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oracle.app import Tasks
from tests.oracle.lab import OURS, STOCK
from tests.oracle.programs import Maker

TASKS = ("step", "step", "step", "late", "silent", "second")
ACTS = ("ok", "ok", "ok", "fail", "retry", "retry_out", "ignore", "reject")


@dataclass(frozen=True)
class Tree:
    """A canvas before it has tasks."""

    kind: str
    parts: tuple[Any, ...]


leaves = st.builds(Tree, st.just("task"), st.tuples(st.sampled_from(TASKS), st.sampled_from(ACTS)))


def inner(parts: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    some = st.lists(parts, min_size=2, max_size=3).map(tuple)
    linked = st.builds(Tree, st.just("linked"), st.tuples(leaves, parts))
    guarded = st.builds(Tree, st.just("guarded"), st.tuples(parts))
    return st.builds(Tree, st.sampled_from(("chain", "group", "chord")), some) | linked | guarded


trees = st.recursive(leaves, inner, max_leaves=7).filter(lambda tree: tree.kind != "task")


class Grower:
    """Makes the canvas of a tree, its tasks labelled in the order of writing."""

    def __init__(self, tasks: Tasks, tag: str) -> None:
        self._tasks = tasks
        self._make = Maker(tag)
        self._numbers = itertools.count()

    def grow(self, tree: Tree) -> Any:
        return getattr(self, f"_{tree.kind}")(*tree.parts)

    def _label(self) -> str:
        return f"t{next(self._numbers)}"

    def _task(self, task: str, act: str) -> Any:
        return self._make(getattr(self._tasks, task), self._label(), do=act)

    def _chain(self, *parts: Tree) -> Any:
        return chain(*map(self.grow, parts))

    def _group(self, *parts: Tree) -> Any:
        return group([self.grow(part) for part in parts])

    def _chord(self, *parts: Tree) -> Any:
        header = [self.grow(part) for part in parts[:-1]]
        return chord(header, self.grow(parts[-1]))

    def _linked(self, first: Tree, callback: Tree) -> Any:
        task = self.grow(first)
        task.link(self.grow(callback))
        return task

    def _guarded(self, part: Tree) -> Any:
        return self.grow(part).on_error(self._make(self._tasks.errback, self._label()))


@given(tree=trees)
@settings(
    max_examples=40, derandomize=True, deadline=None, database=None, print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_a_random_canvas_does_what_it_does_on_celery(run_all, tree):
    def program(tasks, tag):
        return Grower(tasks, tag).grow(tree).apply_async()

    transcripts = run_all({"tree": program})

    expected = transcripts[STOCK, STOCK, "tree"]
    assert expected.differences(transcripts[OURS, OURS, "tree"]) == []
    assert expected.differences(transcripts[OURS, STOCK, "tree"]) == []
