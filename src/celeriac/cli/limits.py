"""``celeriac limits``: look at the limits of the whole cluster, and change them while workers run."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import click

from celeriac.broker import Broker
from celeriac.cli.output import echo_json, echo_table
from celeriac.cli.store import app_with_state, broker_of
from celeriac.compat import connect
from celeriac.compat.limiting import Limiting
from celeriac.keyvalue import KeyValueStore
from celeriac.policies.lane import claims_of
from celeriac.policies.limit import Allowance, allowance
from celeriac.policies.limit_book import LimitBook

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

MOST_LANES = 10_000
"""Lanes of one queue that are looked at."""


class Opened(NamedTuple):
    """What the commands work with."""

    broker: Broker
    store: KeyValueStore
    book: LimitBook


@contextmanager
def _opened(ctx: click.Context) -> Iterator[Opened]:
    with app_with_state(ctx) as app:
        app.loader.import_default_modules()
        app.finalize()
        book = LimitBook(Limiting(app).declared)
        with broker_of(ctx) as broker, closing(connect.open_key_values(app)) as store:
            book.load(store)
            yield Opened(broker, store, book)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def limits(ctx: click.Context, *, as_json: bool) -> None:
    """Look at the limits of the whole cluster; change them while workers run.  Lists them when nothing else is said."""
    if ctx.invoked_subcommand is None:
        _list(ctx, as_json=as_json)


@limits.command("list")
@json_option
@click.pass_context
def list_limits(ctx: click.Context, *, as_json: bool) -> None:
    """List all limits: what they allow, and how many messages wait for each."""
    _list(ctx, as_json=as_json)


def _list(ctx: click.Context, *, as_json: bool) -> None:
    with _opened(ctx) as (broker, _, book):
        parked = _parked(broker, connect.queue_names(ctx.obj.app))
        found = [_summary(book, name, parked[name]) for name in sorted({*book.names(), *parked})]
    if as_json:
        echo_json(found)
    elif not found:
        click.echo("No limits.")
    else:
        rows = [(each["name"], each["text"], each["state"], each["parked"]) for each in found]
        echo_table(("name", "allows", "", "parked"), rows)


def _parked(broker: Broker, queues: list[str]) -> Counter[str]:
    """Messages that wait for each limit; one that is under two limits counts for both."""
    parked: Counter[str] = Counter()
    for lane in broker.lanes(queues, MOST_LANES):
        for claim in claims_of(lane.name):
            parked[claim.limit] += lane.count
    return parked


def _summary(book: LimitBook, name: str, parked: int) -> dict[str, Any]:
    allowed = book.allowed(name)
    declared = book.declared.get(name)
    state = "" if declared is not None else "not declared by this app"
    if name in book.changed:
        state = f"changed, declared: {declared}" if declared is not None else "changed, not declared by this app"
    return {
        "name": name,
        "rate": None if allowed.rate is None else str(allowed.rate),
        "burst": allowed.burst if allowed.rate else None,
        "concurrency": allowed.concurrency,
        "changed": name in book.changed,
        "declared": None if declared is None else str(declared),
        "parked": parked,
        "text": str(allowed),
        "state": state,
    }


@limits.command("set")
@click.argument("name")
@click.option("--rate", help="At most so many starts: 100/s, 10/m, 5/h, 10/30s; 'none' for no rate.")
@click.option("--burst", type=click.IntRange(min=1), help="How much of the rate may start at the same moment.")
@click.option("--concurrency", help="At most so many at once; 'none' for any number.")
@json_option
@click.pass_context
def set_limit(ctx: click.Context, /, name: str, *, as_json: bool, **wanted: Any) -> None:
    """Change a limit for all workers.  They notice within a second; it stays so until ``clear``.

    What is not said stays as it is.
    """
    if not any(wanted.values()):
        raise click.UsageError("Say what to change: --rate, --burst or --concurrency.")
    with _opened(ctx) as (_, store, book):
        new = _changed(book.allowed(_known(book, name)), **wanted)
        book.change(store, name, new)
    _report(name, new, as_json=as_json)


def _changed(old: Allowance, rate: str | None, burst: int | None, concurrency: str | None) -> Allowance:
    """Raises ``ConfigurationError`` for what contradicts itself."""
    if rate is None:
        new_rate: Any = old.rate
        burst = burst or (old.burst if old.rate else None)
    else:
        new_rate = None if rate == "none" else rate
    most: Any = old.concurrency
    if concurrency is not None:
        most = None if concurrency == "none" else int(concurrency) if concurrency.isdigit() else concurrency
    return allowance(new_rate, burst, most)


@limits.command("clear")
@click.argument("name")
@json_option
@click.pass_context
def clear(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Undo ``set``: the limit allows again what its task declares.  One that nobody declares any more is forgotten."""
    with _opened(ctx) as (_, store, book):
        book.change(store, _known(book, name), None)
        if name not in book.declared:
            book.forget(store, name)
        allowed = book.allowed(name)
    _report(name, allowed, as_json=as_json)


def _known(book: LimitBook, name: str) -> str:
    names = book.names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else f" There is {', '.join(names) or 'none'}."
        raise click.ClickException(f"There is no limit {name!r}.{hint}")
    return name


def _report(name: str, allowed: Allowance, *, as_json: bool) -> None:
    if as_json:
        rate = None if allowed.rate is None else str(allowed.rate)
        echo_json({"name": name, "rate": rate, "burst": allowed.burst, "concurrency": allowed.concurrency})
    else:
        click.echo(f"{name} allows {allowed}.")
