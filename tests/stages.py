"""Stages for the tests of patterns: each way to keep queues and shared state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.workers import Stage

STORES = ("sqlite", "redis", "apart")
"""``apart``: the queues in Redis, the shared state in a file, as with a broker that cannot keep it."""


def open_stage(kind: str, directory: Path, redis_url: Callable[[], str], app: str, **conf: Any) -> Stage:
    """A stage of this kind."""
    if kind == "apart":
        conf["celeriac_state_url"] = f"sqlite:///{directory}/state.sqlite3"
    return Stage(directory, None if kind == "sqlite" else redis_url(), app=app, conf=conf)


def each_stage(request: Any, directory: Path, app: str, **conf: Any) -> Iterator[Stage]:
    """For a fixture with :data:`STORES` as its parameters."""
    with ExitStack() as stack:
        yield stack.enter_context(
            open_stage(request.param, directory, lambda: request.getfixturevalue("redis_url"), app, **conf)
        )
