"""Stages for the tests of patterns: each way to keep queues and shared state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.workers import Stage

STORES = ("sqlite", "redis", "postgres", "rabbitmq")
"""With RabbitMQ, results and shared state are in a file; with the others all is in one store."""


def each_stage(request: Any, directory: Path, app: str, **conf: Any) -> Iterator[Stage]:
    """For a fixture with some of :data:`STORES` as its parameters."""
    kind = request.param
    broker = None if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    backend = f"sqlite:///{directory}/results.sqlite3" if kind == "rabbitmq" else None
    with Stage(directory, broker, backend, app=app, conf=conf) as stage:
        yield stage


def lasting_stage(request: Any, directory: Path, app: str, database: int, **conf: Any) -> Iterator[Stage]:
    """For a fixture of a module with some of :data:`STORES` as its parameters.

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
        elif request.param == "postgres":
            server = request.getfixturevalue("shared_postgres")
            stage = Stage(directory, server.database_url(server.new_database()), app=app, conf=conf)
        elif request.param == "redis":
            stage = Stage(directory, request.getfixturevalue("shared_redis").database_url(database), app=app, conf=conf)
        else:
            stage = Stage(directory, app=app, conf=conf)
        yield stack.enter_context(stage)
