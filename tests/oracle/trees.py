"""Random canvas: chains, groups and chords in one another, and all that can be hung on them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group
from hypothesis import strategies as st

from tests.oracle.app import Tasks
from tests.oracle.programs import Maker

TASKS = ("step", "step", "step", "late", "silent", "second", "tracked", "throwing")
ACTS = (
    "ok", "ok", "ok", "ok", "echo", "fail", "retry", "retry_out", "ignore", "reject", "expected", "context",
    "fail_two", "grow_or_go",
)  # fmt: skip
OPTIONS = ({"countdown": 0.05}, {"priority": 6}, {"queue": "second"}, {"expires": 60}, {"expires": -5}, {"shadow": "x"})


@dataclass(frozen=True)
class Tree:
    """A canvas before it has tasks."""

    kind: str
    parts: tuple[Any, ...]


leaves = st.builds(Tree, st.just("task"), st.tuples(st.sampled_from(TASKS), st.sampled_from(ACTS), st.booleans()))
"""A task, what it does, and whether it is immutable."""
autos = st.builds(Tree, st.just("auto"), st.tuples(st.sampled_from((0, 1, 99))))
items = st.builds(Tree, st.sampled_from(("map", "starmap", "chunks")), st.tuples(st.integers(1, 3)))
ends = leaves | leaves | leaves | leaves | autos | items


def inner(parts: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    some = st.lists(parts, min_size=1, max_size=3).map(tuple)
    many = st.builds(Tree, st.sampled_from(("chain", "group", "chord")), some)
    linked = st.builds(Tree, st.just("linked"), st.tuples(leaves, parts))
    guarded = st.builds(Tree, st.just("guarded"), st.tuples(parts, st.sampled_from(("errback", "old_errback", "step"))))
    replaced = st.builds(Tree, st.just("replaced"), st.tuples(parts))
    stamped = st.builds(Tree, st.just("stamped"), st.tuples(parts))
    optioned = st.builds(Tree, st.just("optioned"), st.tuples(leaves, st.sampled_from(OPTIONS)))
    return many | many | linked | guarded | replaced | stamped | optioned


trees = st.recursive(ends, inner, max_leaves=8).filter(lambda tree: tree.kind != "task")


class Grower:
    """Makes the canvas of a tree, its tasks labelled in the order of writing."""

    def __init__(self, tasks: Tasks, tag: str) -> None:
        self._tasks = tasks
        self._tag = tag
        self._make = Maker(tag)
        self._numbers = itertools.count()

    def grow(self, tree: Tree) -> Any:
        return getattr(self, f"_{tree.kind}")(*tree.parts)

    def _label(self) -> str:
        return f"t{next(self._numbers)}"

    def _task(self, task: str, act: str, immutable: bool) -> Any:
        make = self._make.fixed if immutable else self._make
        return make(getattr(self._tasks, task), self._label(), do=act)

    def _auto(self, times: int) -> Any:
        return self._make.fixed(self._tasks.auto, self._label(), times=times)

    def _arguments(self, count: int) -> list[Any]:
        return [(self._tag, self._label(), number) for number in range(count)]

    def _map(self, count: int) -> Any:
        return self._tasks.item.map(self._arguments(count))

    def _starmap(self, count: int) -> Any:
        return self._tasks.spread.starmap(self._arguments(count))

    def _chunks(self, count: int) -> Any:
        return self._tasks.spread.chunks(self._arguments(count), 2).group()

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

    def _guarded(self, part: Tree, errback: str) -> Any:
        return self.grow(part).on_error(self._make(getattr(self._tasks, errback), self._label()))

    def _replaced(self, by: Tree) -> Any:
        return self._make(self._tasks.step, self._label(), do="replace", by=self.grow(by))

    def _stamped(self, part: Tree) -> Any:
        canvas = self.grow(part)
        canvas.stamp(colour="red", stamp=self._label())
        return canvas

    def _optioned(self, leaf: Tree, options: dict[str, Any]) -> Any:
        return self.grow(leaf).set(**options)


def count(tree: Tree, kind: str) -> int:
    """How many parts of a kind are in it."""
    own = 1 if tree.kind == kind else 0
    return own + sum(count(part, kind) for part in tree.parts if isinstance(part, Tree))
