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


BROKERS = ("sqlite", "redis", "rabbitmq")
"""What the queues can be in."""


def lasting_stage(request: Any, directory: Path, app: str, database: int, **conf: Any) -> Iterator[Stage]:
    """For a fixture of a module with :data:`BROKERS` as its parameters.

    Args:
        request: pytest's.
        directory: an empty one.
        app: module of the app.
        database: number of the one in Redis that is this module's.
        conf: settings.
    """
    with ExitStack() as stack:
        if request.param == "rabbitmq":
            url = stack.enter_context(request.getfixturevalue("shared_rabbitmq").vhost())
            stage = Stage(directory, url, f"sqlite:///{directory}/results.sqlite3", app=app, conf=conf)
        elif request.param == "redis":
            stage = Stage(directory, request.getfixturevalue("shared_redis").database_url(database), app=app, conf=conf)
        else:
            stage = Stage(directory, app=app, conf=conf)
        yield stack.enter_context(stage)
