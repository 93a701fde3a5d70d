"""``celeriac queues``: how much lies where."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import click

from celeriac.cli.output import counted, describe_age, echo_json, echo_table
from celeriac.cli.store import broker_of, queues_of
from celeriac.errors import StoreUnavailable
from celeriac.telemetry.views import StoreView, look_at_store


@click.command()
@click.option("--queues", "-Q", "chosen", multiple=True, metavar="NAMES", help="Only these (a list with commas).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs; with --watch one line each time.")
@click.option("--watch", "-w", is_flag=True, help="Look again and again until Ctrl-C.")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds between two looks with --watch.  Shorter asks more of the broker: three calls each.",
)
@click.pass_context
def queues(ctx: click.Context, chosen: tuple[str, ...], *, as_json: bool, watch: bool, interval: float) -> None:
    """Show what waits in each queue, what is scheduled or parked by a limit, who serves it, and how long the next has waited."""
    show = _echo_as_json if as_json else _echo_as_table
    with broker_of(ctx) as broker:
        names = queues_of(ctx, chosen)
        if watch:
            _watch(lambda: look_at_store(broker, names), show, interval, as_json=as_json)
        else:
            show(look_at_store(broker, names), watching=False)


def _watch(look: Callable[[], StoreView], show: Callable[..., None], interval: float, *, as_json: bool) -> None:
    """Until interrupted.  A broker that is away for a while is reported and asked again."""
    clear = sys.stdout.isatty() and not as_json
    with suppress(KeyboardInterrupt):
        while True:
            try:
                view = look()
            except StoreUnavailable as error:
                click.echo(f"{error} (trying again)", err=True)
            else:
                if clear:
                    click.clear()
                show(view, watching=True)
            time.sleep(interval)


def _echo_as_json(view: StoreView, *, watching: bool) -> None:
    queues = [asdict(depth) for depth in view.queues]
    echo_json({"queues": queues, "leased": view.leased, "dead": view.dead}, on_one_line=watching)


def _echo_as_table(view: StoreView, *, watching: bool) -> None:
    if watching:
        click.echo(time.strftime("%H:%M:%S"))
    rows = [(d.queue, d.ready, d.scheduled, d.parked, d.consumers, describe_age(d.oldest_age)) for d in view.queues]
    echo_table(("queue", "ready", "scheduled", "parked", "consumers", "oldest"), rows)
    click.echo(f"\nAll queues: {view.leased:,} leased, {counted(view.dead, 'dead letter')}.")
