"""``celeriac retries``: when a task is tried again."""

from __future__ import annotations

import difflib
from typing import Any

import click

from celeriac.cli.output import echo_json, echo_table
from celeriac.cli.store import plain_errors
from celeriac.compat.patterns.describing import Rule, describe
from celeriac.policies.retries import Retry, Step, schedule

SHOWN = 20
"""Retries of a schedule that are shown unless told otherwise."""


@click.command()
@click.argument("task")
@click.option(
    "--limit", "-n", default=SHOWN, show_default=True, type=click.IntRange(min=1), help="At most so many retries."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def retries(ctx: click.Context, task: str, limit: int, *, as_json: bool) -> None:
    """Print when TASK is tried again, for each kind of exception: shortest and longest delay, time since the first run, and when
    it gives up.

    Times are in seconds and leave out how long the runs themselves take.
    """
    with plain_errors():
        rules = describe(_task(ctx.obj.app, task))
    if as_json:
        echo_json({"task": task, "rules": [_as_json(rule, limit) for rule in rules]})
        return
    for number, rule in enumerate(rules):
        if number:
            click.echo()
        _print(rule, limit)


def _task(app: Any, name: str) -> Any:
    app.loader.import_default_modules()
    app.finalize(auto=True)
    if name in app.tasks:
        return app.tasks[name]
    close = difflib.get_close_matches(name, app.tasks, 1)
    hint = (
        f" Did you mean {close[0]}?"
        if close
        else " `celeriac -A … report` lists none of that name; is its module imported?"
    )
    raise click.ClickException(f"There is no task {name}.{hint}")


def _as_json(rule: Rule, limit: int) -> dict[str, object]:
    retry = rule.retry
    if retry is None:
        return {"for": rule.applies_to, "never": True}
    steps = schedule(retry, limit)
    return {
        "for": rule.applies_to,
        "never": False,
        "times": retry.times,
        "retry_for": retry.retry_for,
        "retry_after": retry.retry_after,
        "retries": [step._asdict() for step in steps],
        "complete": _is_complete(retry, steps, limit),
    }


def _is_complete(retry: Retry, steps: list[Step], limit: int) -> bool:
    """Whether the schedule ends with these."""
    return len(steps) < limit or retry.times == limit


def _print(rule: Rule, limit: int) -> None:
    retry = rule.retry
    if retry is None:
        click.echo(f"{rule.applies_to}: never tried again")
        return
    click.echo(f"{rule.applies_to}: {_told(retry)}")
    steps = schedule(retry, limit)
    if steps:
        rows = [
            (s.number, _span(s.shortest, s.longest), _span(s.earliest, s.latest), "" if s.sure else "perhaps")
            for s in steps
        ]
        echo_table(("retry", "after", "since the first run", ""), rows)
    click.echo(_ending(retry, steps, limit))


def _told(retry: Retry) -> str:
    jitter = f"jitter ±{retry.jitter:g} %" if isinstance(retry.jitter, (int, float)) else f"jitter {retry.jitter}"
    grows = {"fixed": "fixed", "linear": "linear", "exponential": f"exponential x{retry.factor:g}"}[retry.growth]
    asked = f", Retry-After honoured up to {retry.retry_after:g} s" if retry.retry_after else ""
    return f"{grows} from {retry.delay:g} s, at most {retry.cap:g} s, {jitter}{asked}"


def _span(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _ending(retry: Retry, steps: list[Step], limit: int) -> str:
    if not _is_complete(retry, steps, limit):
        return f"… and so on (--limit); {_bounds(retry)}."
    last = steps[-1] if steps else None
    when = f", {_span(last.earliest, last.latest)} s after the first run began" if last else ""
    return f"Gives up after {len(steps)} {'retry' if len(steps) == 1 else 'retries'}{when}; {_bounds(retry)}."


def _bounds(retry: Retry) -> str:
    count = "any number of retries" if retry.times is None else f"at most {retry.times}"
    return count if retry.retry_for is None else f"{count} within {retry.retry_for:g} s"
