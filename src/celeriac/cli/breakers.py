"""``celeriac breakers``: look at circuit breakers, open and close them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from celeriac.cli.output import describe_age, echo_json, echo_table
from celeriac.cli.store import app_with_state
from celeriac.compat import connect
from celeriac.compat.patterns.circuit_breaker import breakers_of
from celeriac.keyvalue import KeyValueStore
from celeriac.policies.breaking import force, read_all
from celeriac.policies.circuit_breaker import Breaker, State, Status

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@contextmanager
def _store_of(ctx: click.Context) -> Iterator[tuple[KeyValueStore, dict[str, Breaker]]]:
    """The store, and the breakers that the app's tasks have."""
    with app_with_state(ctx) as app:
        app.loader.import_default_modules()
        app.finalize()
        store = connect.open_key_values(app)
        try:
            yield store, breakers_of(app)
        finally:
            store.close()


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def breakers(ctx: click.Context, *, as_json: bool) -> None:
    """Look at circuit breakers; open and close them.  Lists them when nothing else is said."""
    if ctx.invoked_subcommand is None:
        _list(ctx, as_json=as_json)


@breakers.command("list")
@json_option
@click.pass_context
def list_breakers(ctx: click.Context, *, as_json: bool) -> None:
    """List all breakers of the app, and those that are in the store."""
    _list(ctx, as_json=as_json)


def _list(ctx: click.Context, *, as_json: bool) -> None:
    with _store_of(ctx) as (store, known):
        now, states = read_all(store, list(known))
    found = [summary(name, state, known.get(name), now) for name, state in states.items()]
    if as_json:
        echo_json(found)
    elif not found:
        click.echo("No circuit breakers.")
    else:
        rows = [
            (each["name"], each["status"], each["failures"], each["runs"], _wait(each), each["reason"])
            for each in found
        ]
        echo_table(("name", "status", "failures", "runs", "probes in", "reason"), rows)


def _wait(each: dict[str, object]) -> str:
    if each["status"] != Status.OPEN.value:
        return "-"
    seconds = each["probes_in"]
    return describe_age(seconds) if isinstance(seconds, float) else "when closed"


def summary(name: str, state: State, breaker: Breaker | None, now: float) -> dict[str, object]:
    """A breaker as JSON has it.  Times are in seconds; ``probes_in`` is ``null`` for one that only a person closes."""
    recent = [each for each in state.buckets if breaker is None or each.start > now - breaker.window]
    return {
        "name": name,
        "status": state.status.value,
        "since": state.since or None,
        "probes_in": None if state.until is None else max(0.0, state.until - now),
        "failures": sum(each.failures for each in recent),
        "runs": sum(each.total for each in recent),
        "probing": len(state.probes),
        "openings": state.openings,
        "reason": state.reason,
        "declared": breaker is not None,
    }


@breakers.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Show one breaker, with how it behaves."""
    with _store_of(ctx) as (store, known):
        now, states = read_all(store, list(known))
    state, breaker = states.get(name), known.get(name)
    if state is None:
        raise click.ClickException(_unknown(name, [*states]))
    told = summary(name, state, breaker, now)
    if breaker is not None:
        names = ("window", "rate", "minimum", "cooldown", "probes", "when_open")
        told["settings"] = {"failures": breaker.failures, **{each: getattr(breaker, each) for each in names}}
    if as_json:
        echo_json(told)
        return
    for key, value in told.items():
        click.echo(f"{key + ':':<10} {value}")


def _unknown(name: str, known: list[str]) -> str:
    return f"There is no circuit breaker {name!r}; there is {', '.join(known) or 'none'}."


@breakers.command("open")
@click.argument("name")
@click.option("--reason", default="opened by hand", show_default=True, help="For those who look at it.")
@json_option
@click.pass_context
def open_breaker(ctx: click.Context, name: str, reason: str, *, as_json: bool) -> None:
    """Open a breaker until it is closed by hand."""
    _force(ctx, name, State(Status.OPEN, reason=reason), as_json=as_json)


@breakers.command("close")
@click.argument("name")
@json_option
@click.pass_context
def close_breaker(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Close a breaker, and forget the failures that it has counted."""
    _force(ctx, name, State(), as_json=as_json)


def _force(ctx: click.Context, name: str, state: State, *, as_json: bool) -> None:
    with _store_of(ctx) as (store, known):
        _, states = read_all(store, list(known))
        if name not in states:
            raise click.ClickException(_unknown(name, [*states]))
        force(store, name, state)
    if as_json:
        echo_json({"name": name, "status": state.status.value})
    else:
        click.echo(f"{name} is {state.status.value}. Workers see it within a second.")
