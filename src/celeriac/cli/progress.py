"""``celeriac progress`` and ``celeriac cancel``: long work, seen and ended from afar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from celeriac.cli.output import counted, describe_age, echo_json, echo_table
from celeriac.cli.store import app_with_state
from celeriac.compat.long_work.work import all_progress, progress_of
from celeriac.policies.progress import Progress


@click.command()
@click.argument("task_ids", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--watch", "-w", is_flag=True, help="Look again every second until Ctrl-C, or until the named tasks are done."
)
@click.pass_context
def progress(ctx: click.Context, task_ids: tuple[str, ...], *, as_json: bool, watch: bool) -> None:
    """Show how far tasks are that report it: all of them, or those with the given ids."""
    with app_with_state(ctx) as app:
        while True:
            found = _look(app, task_ids)
            _show(found, as_json=as_json, watching=watch)
            if not watch or (task_ids and all(each.done == each.total for each in found)):
                return
            time.sleep(1.0)


def _look(app: Any, task_ids: Sequence[str]) -> list[Progress]:
    if not task_ids:
        return all_progress(app)
    return [each for each in (progress_of(app, task_id) for task_id in task_ids) if each is not None]


def _show(found: Sequence[Progress], *, as_json: bool, watching: bool) -> None:
    if as_json:
        rows = [{**asdict(each), "seconds_left": each.seconds_left} for each in found]
        echo_json(rows, on_one_line=watching)
    elif found:
        head = ("task", "id", "done", "of", "%", "rate/s", "left", "seen", "note")
        echo_table(head, [_row(each) for each in found])
    else:
        click.echo("No task has reported its progress lately.")


def _row(each: Progress) -> tuple[object, ...]:
    fraction = "-" if each.fraction is None else f"{100 * each.fraction:.0f}"
    total = "-" if each.total is None else f"{each.total:,g}"
    rate = "-" if each.rate is None else f"{each.rate:,.3g}"
    seen = describe_age(time.time() - each.at)
    left = describe_age(each.seconds_left)
    return each.task, each.task_id, f"{each.done:,g}", total, fraction, rate, left, seen, each.note


@click.command()
@click.argument("task_ids", nargs=-1, required=True)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a running task has to stop by itself; then it gets an exception, and after as long again its process "
    "is killed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def cancel(ctx: click.Context, task_ids: tuple[str, ...], *, grace: float, as_json: bool) -> None:
    """Cancel tasks: those that wait are not started, those that run are brought to an end.  It holds for a week."""
    with app_with_state(ctx) as app:
        app.control.cancel(task_ids, grace)
    if as_json:
        echo_json({"cancelled": list(task_ids), "grace": grace})
    else:
        click.echo(f"{counted(len(task_ids), 'task')} cancelled.")
