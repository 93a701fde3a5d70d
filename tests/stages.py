"""Stages for the tests of patterns: each way to keep queues and shared state."""

from __future__ import annotations

from collections.abc import Iterator
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
