"""The options that say which dead letters are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from celeriac.cli.output import Age
from celeriac.compat.dead import Selection
from celeriac.outcome import DeadReason

F = TypeVar("F", bound=Callable[..., Any])

EVERYTHING = Selection()


class Argument(click.ParamType):
    """``NAME=VALUE``; becomes a pair of texts."""

    name = "argument"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse it.  Fails with an example."""
        name, separator, wanted = str(value).partition("=")
        if not separator or not name:
            self.fail(f"{value!r} is not NAME=VALUE; write for example order_id=17, order.id=17 or 0=17.", param, ctx)
        return name, wanted


def selection_options(command: F) -> F:
    """Give a command the options that :func:`selection_of` reads; its callback gets them by their names."""
    reasons = click.Choice([reason.value for reason in DeadReason])
    options = (
        click.option("--task", "-t", metavar="PATTERN", help="Only this task; * stands for anything."),
        click.option("--queue", "-Q", metavar="NAME", help="Only what came from this queue."),
        click.option("--reason", "-r", "reasons", type=reasons, multiple=True, help="Only these reasons."),
        click.option("--error", "-e", metavar="TEXT", help="Only errors whose text has this in it."),
        click.option(
            "--arg", "-a", "arguments", type=Argument(), multiple=True, metavar="NAME=VALUE",
            help="Only this value of an argument, by its name, number or path: order_id=17, 0=17, order.id=17.",
        ),
        click.option(
            "--older-than", "--until", type=Age(), help="Only those that died longer ago: 90s, 10m, 2h, 7d."
        ),
        click.option("--newer-than", "--since", type=Age(), help="Only those that died since: 90s, 10m, 2h, 7d."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def selection_of(ctx: click.Context, wanted: dict[str, Any]) -> Selection:
    """What the options say.  Where arguments are asked for, the app's tasks are loaded, which know their names."""
    arguments = dict(wanted.pop("arguments"))
    if arguments:
        load_tasks(ctx)
    return Selection(**wanted, arguments=arguments)


def load_tasks(ctx: click.Context) -> None:
    """Make the app's tasks known, as a worker does."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    app.finalize(auto=True)
