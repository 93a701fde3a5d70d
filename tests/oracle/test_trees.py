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

ACTS = ("ok", "ok", "ok", "fail", "retry", "retry_out", "ignore")


@dataclass(frozen=True)
class Tree:
    """A canvas before it has tasks."""

    kind: str
    parts: tuple[Any, ...]


leaves = st.sampled_from(ACTS).map(lambda act: Tree("task", (act,)))


def inner(parts: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    some = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.builds(Tree, st.sampled_from(("chain", "group", "chord")), some)


trees = st.recursive(leaves, inner, max_leaves=7).filter(lambda tree: tree.kind != "task")


def grow(tree: Tree, tasks: Tasks, make: Maker, numbers: Any) -> Any:
    """The canvas of a tree, its tasks labelled in the order of writing."""
    if tree.kind == "task":
        return make(tasks.step, f"t{next(numbers)}", do=tree.parts[0])
    parts = [grow(part, tasks, make, numbers) for part in tree.parts]
    if tree.kind == "chain":
        return chain(*parts)
    return group(parts) if tree.kind == "group" else chord(parts[:-1], parts[-1])


@given(tree=trees)
@settings(
    max_examples=40, derandomize=True, deadline=None, database=None, print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_a_random_canvas_does_what_it_does_on_celery(run_all, tree):
    def program(tasks, tag):
        return grow(tree, tasks, Maker(tag), itertools.count()).apply_async()

    transcripts = run_all({"tree": program})

    assert transcripts[STOCK, STOCK, "tree"].differences(transcripts[OURS, OURS, "tree"]) == []
