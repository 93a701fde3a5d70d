"""``celeriac schedule``: look at the periodic tasks, and change them while they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from celeriac.cli.output import describe_age, echo_json, echo_table
from celeriac.cli.store import plain_errors
from celeriac.compat.periodic.choice import store_scheduler
from celeriac.compat.periodic.console import Console, Listed
from celeriac.compat.periodic.ticks import Missed

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
NAMES = click.argument("names", nargs=-1, required=True)


class JsonValue(click.ParamType):
    """A JSON text of one kind."""

    name = "json"

    def __init__(self, kind: type, example: str) -> None:
        self._kind = kind
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it.  Fails with an example."""
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, self._kind):
            self.fail(f"{value!r} is not what is wanted; write for example {self._example}", param, ctx)
        return parsed


@click.group()
def schedule() -> None:
    """Look at the periodic tasks, and pause, run or change them.

    Changes are kept in the store that all schedulers share and are noticed within a second or two.
    """


@contextmanager
def _console(ctx: click.Context) -> Iterator[Console]:
    with plain_errors():
        app = ctx.obj.app
        app.loader.init_worker()
        app.finalize()
        scheduler = store_scheduler(app)
        try:
            yield Console(scheduler)
        finally:
            scheduler.close()


@schedule.command("list")
@AS_JSON
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """Show every periodic task: its schedule, its next tick, its last one, and who leads."""
    with _console(ctx) as console:
        listed, leader = console.listed(), console.leader()
    if as_json:
        echo_json({"leader": leader, "entries": [each._asdict() for each in listed]})
        return
    echo_table(
        ("name", "schedule", "next in", "last", "sent", "missed", "task"), [_row(each, console.now) for each in listed]
    )
    click.echo(f"\n{f'{leader} leads' if leader else 'No scheduler runs: start `celeriac beat` or a worker with -B'}.")


def _row(each: Listed, now: float) -> tuple[object, ...]:
    upcoming = "paused" if each.paused else describe_age(each.next - now) if each.next is not None else "-"
    last = describe_age(now - each.last_sent) + " ago" if each.last_sent else "-"
    plan = each.schedule + (" (edited)" if each.origin == "edited" else "")
    return each.name, plan, upcoming, last, each.sent, each.missed, each.task


@schedule.command()
@NAMES
@AS_JSON
@click.pass_context
def pause(ctx: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Send nothing for these until they are resumed."""
    _each(ctx, names, Console.pause, "paused", as_json=as_json)


@schedule.command()
@NAMES
@AS_JSON
@click.pass_context
def resume(ctx: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Go on from now; what would have been due meanwhile is not sent."""
    _each(ctx, names, Console.resume, "resumed", as_json=as_json)


@schedule.command()
@NAMES
@AS_JSON
@click.pass_context
def run(ctx: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Send these now, out of turn; their schedule goes on as it was."""
    _each(ctx, names, Console.run, "sent", as_json=as_json)


def _each(ctx: click.Context, names: tuple[str, ...], act: Any, word: str, *, as_json: bool) -> None:
    with _console(ctx) as console:
        console.check(names)
        done = {name: act(console, name) for name in names}
    if as_json:
        echo_json({word: list(done), **({"task_ids": done} if any(done.values()) else {})})
        return
    for name, task_id in done.items():
        click.echo(f"{name}: {word}" + (f" as {task_id}" if task_id else ""))


@schedule.command()
@click.argument("name")
@click.option("--every", metavar="SECONDS", help="Send it every so many seconds.")
@click.option("--cron", metavar="FIELDS", help="Send it at the times of a crontab, for example '*/5 8-18 * * mon-fri'.")
@click.option("--args", type=JsonValue(list, "'[1, 2]'"), help="Positional arguments, as a JSON list.")
@click.option("--kwargs", type=JsonValue(dict, """'{"user": 1}'"""), help="Keyword arguments, as a JSON object.")
@click.option("--queue", help="Send it to this queue.")
@click.option("--missed", type=click.Choice([each.value for each in Missed]), help="What becomes of missed ticks.")
@click.option("--overlap/--no-overlap", default=None, help="Whether it may be sent while its last run has not ended.")
@click.option("--reset", is_flag=True, help="Drop all changes: as the app's configuration says.")
@AS_JSON
@click.pass_context
def edit(ctx: click.Context, /, name: str, *, as_json: bool, reset: bool, **given: Any) -> None:
    """Change a periodic task without a deployment.  What is not given stays as it is."""
    if given["every"] and given["cron"]:
        raise click.UsageError("Give --every or --cron, not both.")
    plan, queue = given.pop("every") or given["cron"], given.pop("queue")
    given.pop("cron")
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= {"schedule": plan} if plan else {}
    changes |= {"options": {"queue": queue}} if queue else {}
    if not changes and not reset:
        raise click.UsageError("Nothing to change; see --help.")
    with _console(ctx) as console:
        console.check([name])
        listed = console.edit(name, changes, reset=reset)
    if as_json:
        echo_json(listed._asdict())
    else:
        click.echo(f"{name}: {listed.schedule}, task {listed.task}, arguments {listed.arguments}")
