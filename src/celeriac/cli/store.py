"""How a command gets at its app's broker, and how the broker's errors reach the person who typed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from celeriac.broker import Broker
from celeriac.compat import connect
from celeriac.compat.dead import DeadLetters
from celeriac.errors import CeleriacError, StoreError

EX_UNAVAILABLE = 69
"""Exit code for a broker that cannot be used, as in Celery's own commands (and ``sysexits.h``)."""


class StoreProblem(click.ClickException):
    """The broker said no: its text on standard error, and :data:`EX_UNAVAILABLE`."""

    exit_code = EX_UNAVAILABLE


@contextmanager
def broker_of(ctx: click.Context) -> Iterator[Broker]:
    """The broker of the command's app, closed at the end.  Our own errors become one line and an exit code."""
    with plain_errors():
        broker = connect.open_broker(ctx.obj.app)
        try:
            yield broker
        finally:
            broker.close()


@contextmanager
def letters_of(ctx: click.Context) -> Iterator[DeadLetters]:
    """The dead letters of the command's app."""
    with broker_of(ctx) as broker:
        yield DeadLetters(ctx.obj.app, broker)


@contextmanager
def app_with_state(ctx: click.Context) -> Iterator[Any]:
    """The command's app, whose store for what workers share can be reached from another process.  Errors as in :func:`broker_of`."""
    with plain_errors():
        connect.check_key_values(ctx.obj.app, "This command", elsewhere=True)
        yield ctx.obj.app


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what this package raises into click's errors: for a person, a traceback says no more."""
    try:
        yield
    except StoreError as error:
        raise StoreProblem(str(error)) from error
    except CeleriacError as error:
        raise click.ClickException(str(error)) from error


def queues_of(ctx: click.Context, chosen: tuple[str, ...]) -> list[str]:
    """The queues that were named with ``-Q`` (each may be a list with commas), or all that the app knows."""
    named = [name.strip() for text in chosen for name in text.split(",") if name.strip()]
    return list(dict.fromkeys(named)) or connect.queue_names(ctx.obj.app)
