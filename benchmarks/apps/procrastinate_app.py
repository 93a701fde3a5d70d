"""Procrastinate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException

from benchmarks.apps import URL
from benchmarks.bodies import BODIES

MOST = 1000
"""Jobs in one statement."""

app = App(connector=PsycopgConnector(conninfo=URL))


def _task(name: str, body: Any) -> Any:
    async def run(args: list[Any]) -> Any:
        return body(*args)

    return app.task(name=name)(run)


TASKS = {name: _task(name, body) for name, body in BODIES.items()}

_opened: list[App] = []


def _sender() -> App:
    """The app with a connection to send through, and its tables in place."""
    if not _opened:
        sender = App(connector=SyncPsycopgConnector(conninfo=URL))
        sender.open()
        with contextlib.suppress(ConnectorException):  # they are there already
            sender.schema_manager.apply_schema()
        _opened.append(sender)
    return _opened[0]


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    call = _sender().configure_task(task, allow_unknown=True)
    for args in arguments:
        call.defer(args=list(args))


def send_many(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    call = _sender().configure_task(task, allow_unknown=True)
    rest = iter(arguments)
    while some := [{"args": list(args)} for args in islice(rest, MOST)]:
        call.batch_defer(*some)
