"""Which task runs here: Celery's stacks of current tasks and requests, made to work in coroutines as well.

Celery keeps them per thread.  Coroutines of one thread take turns, so in a worker they are kept per context
(:mod:`contextvars`), which is per thread where there are no coroutines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import celery._state
import celery.app.task
import celery.app.trace


class ContextStack:
    """Celery's ``LocalStack``, per context."""

    __slots__ = ("_items",)

    def __init__(self, name: str) -> None:
        self._items: ContextVar[tuple[Any, ...]] = ContextVar(name, default=())

    def push(self, item: Any) -> None:
        """Put an item on top."""
        self._items.set((*self._items.get(), item))

    def pop(self) -> Any:
        """Take the top item off; ``None`` when there is none."""
        items = self._items.get()
        if not items:
            return None
        self._items.set(items[:-1])
        return items[-1]

    @property
    def top(self) -> Any:
        """The top item; ``None`` when there is none."""
        items = self._items.get()
        return items[-1] if items else None

    @property
    def stack(self) -> list[Any]:
        """All items, the top one last."""
        return list(self._items.get())

    def __len__(self) -> int:
        return len(self._items.get())

    def enter(self, item: Any) -> tuple[Any, ...]:
        """Put an item on top, and return what :meth:`leave` needs to take it off again, with all above it."""
        items = self._items.get()
        self._items.set((*items, item))
        return items

    def leave(self, items: tuple[Any, ...]) -> None:
        """Undo :meth:`enter`."""
        self._items.set(items)


task_stack = ContextStack("celeriac_tasks")
"""The stack of current tasks in a worker."""


@contextmanager
def current(task: Any, request: Any) -> Iterator[None]:
    """Make a task and its request the current ones for a while, in a slot or outside."""
    celery._state._task_stack.push(task)
    task.request_stack.push(request)
    try:
        yield
    finally:
        task.request_stack.pop()
        celery._state._task_stack.pop()


def install(app: Any) -> None:
    """Use these stacks in this process, which is a worker's."""
    for module in (celery._state, celery.app.task, celery.app.trace):
        module._task_stack = task_stack
    for task in app.tasks.values():
        adopt(task)


def adopt(task: Any) -> None:
    """Use such a stack for the requests of a task, which may have been declared since."""
    if not isinstance(task.request_stack, ContextStack):
        type(task).request_stack = ContextStack(task.name)
