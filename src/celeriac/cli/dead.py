"""``celeriac dead``: look at dead letters, send them again as they were or edited, throw them away."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import click

from celeriac.broker import DeadMessage
from celeriac.cli.dead_edit import edit
from celeriac.cli.output import counted, describe_age, echo_json, echo_table, printable
from celeriac.cli.selection import EVERYTHING, selection_of, selection_options
from celeriac.cli.store import letters_of
from celeriac.compat import parcel
from celeriac.compat.dead import Acted, DeadLetters, Selection
from celeriac.message import sent_at

SHOWN = 50
"""Rows of ``list`` unless told otherwise."""

SHOWN_CHARACTERS = 4_000
"""How much of a message ``show`` prints; ``--raw`` and ``--json`` give all."""

UNREADABLE = (ValueError, RecursionError)
"""What parsing raises for bytes that are not JSON, or JSON that is nested too deeply."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
force_option = click.option("--force", "-f", is_flag=True, help="Do not ask.")
all_option = click.option("--all", "everything", is_flag=True, help="All dead letters.")


@click.group()
def dead() -> None:
    """Look at dead letters, send them again, as they were or edited, or throw them away."""


# -- looking -----------------------------------------------------------------------------------------------------------


@dead.command("list")
@selection_options
@click.option("--limit", "-n", default=SHOWN, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@json_option
@click.pass_context
def list_dead(ctx: click.Context, /, limit: int, *, as_json: bool, **wanted: Any) -> None:
    """List dead letters, newest first."""
    now = time.time()
    with letters_of(ctx) as dead_letters:
        found = list(islice(dead_letters.select(selection_of(ctx, wanted)), limit + 1))
        total = dead_letters.count()
    letters = [letter.kept for letter in found[:limit]]
    if as_json:
        echo_json([summary(letter) for letter in letters])
        return
    if not letters:
        click.echo("No dead letters." if not total else f"None of {counted(total, 'dead letter')} is like that.")
        return
    echo_table(("id", "age", "reason", "task", "queue", "tries", "error"), [_row(letter, now) for letter in letters])
    if len(found) > limit:
        click.echo(f"There are more; of {counted(total, 'dead letter')} in all these are the newest {limit} (--limit).")


def _row(letter: DeadMessage, now: float) -> tuple[object, ...]:
    age = describe_age(now - letter.at)
    return letter.id, age, letter.reason, letter.task or "-", letter.queue, letter.attempts + 1, letter.error


def summary(letter: DeadMessage) -> dict[str, object]:
    """A dead letter without its message and traceback, as JSON has it.  ``at`` is in seconds since the epoch."""
    return {
        "id": letter.id,
        "at": letter.at,
        "time": _iso(letter.at),
        "sent": None if (sent := sent_at(letter.raw)) is None else _iso(sent),
        "reason": letter.reason,
        "error": letter.error,
        "task": letter.task,
        "task_id": letter.task_id,
        "queue": letter.queue,
        "attempts": letter.attempts,
        "crashes": letter.crashes,
        "worker": letter.worker,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


# -- one of them -------------------------------------------------------------------------------------------------------


@dead.command("show")
@click.argument("id")
@click.option("--raw", is_flag=True, help="Print the message's bytes as they were received, and nothing else.")
@json_option
@click.pass_context
def show(ctx: click.Context, id: str, *, raw: bool, as_json: bool) -> None:
    """Show one dead letter with its traceback and its message."""
    with letters_of(ctx) as dead_letters:
        try:
            letter = dead_letters.get(id).kept
        except LookupError as error:
            raise click.ClickException(f"There is no dead letter {id}.") from error
    if raw:
        click.echo(letter.raw, nl=False)
    elif as_json:
        echo_json(summary(letter) | {"traceback": letter.traceback} | _raw_as_json(letter.raw))
    else:
        _print_letter(letter)


def _raw_as_json(raw: bytes) -> dict[str, str]:
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}


def _print_letter(letter: DeadMessage) -> None:
    for name, value in summary(letter).items():
        if name != "at" and value not in ("", None):
            click.echo(f"{name + ':':<10} {printable(str(value))}")
    _print_block("traceback", letter.traceback)
    _print_block("message", readable(letter.raw))


def _print_block(title: str, text: str) -> None:
    if not text:
        return
    click.echo(f"\n{title}:")
    for line in text[:SHOWN_CHARACTERS].splitlines():
        click.echo(f"  {printable(line)}")
    if len(text) > SHOWN_CHARACTERS:
        click.echo(f"  … {counted(len(text) - SHOWN_CHARACTERS, 'more character')}; --raw has all")


def readable(raw: bytes) -> str:
    """A message for people: indented, with its body decoded, where it is what Celery sends; else as it is."""
    try:
        envelope = parcel.readable(raw) if parcel.is_parcel(raw) else json.loads(raw)
    except UNREADABLE:
        return raw.decode("utf-8", "backslashreplace")
    if isinstance(envelope, dict) and isinstance(envelope.get("body"), str):
        envelope = {**envelope, "body": _decoded_body(envelope["body"])}
    return json.dumps(envelope, indent=2, ensure_ascii=False, default=str)


def _decoded_body(body: str) -> object:
    """Arguments of a task: JSON, in base64 or plain; anything else stays as it is."""
    with suppress(ValueError):
        body = base64.b64decode(body, validate=True).decode()
    try:
        return json.loads(body)
    except UNREADABLE:
        return body


# -- acting ------------------------------------------------------------------------------------------------------------


@dead.command("replay")
@click.argument("ids", nargs=-1)
@selection_options
@all_option
@click.option("--rate", metavar="RATE", help="At most so many in a time, so that workers keep up: 10/s, 100/m, 5000/h.")
@force_option
@json_option
@click.pass_context
def replay(  # noqa: PLR0913 - one for each option
    ctx: click.Context, /, ids: tuple[str, ...], *, everything: bool, rate: str | None, force: bool, as_json: bool,
    **wanted: Any,
) -> None:  # fmt: skip
    """Send dead letters again: those with these IDS, or all that are like the options say.

    Each starts anew, without the retries and crashes behind it.  However often it is replayed, and by however many at once, it
    is sent once.
    """
    _check_rate(rate)
    with letters_of(ctx) as letters:
        chosen = _choose(letters, ids, selection_of(ctx, wanted), everything=everything)
        _confirm("Replay", chosen, force=force or bool(ids))
        # Oldest first, so that they come to lie in their queues in the order in which they were there before.
        _report(ids, letters.replay_all(list(reversed(chosen)), rate), "replayed", as_json=as_json)


def _check_rate(rate: str | None) -> None:
    try:
        DeadLetters.check_rate(rate)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--rate") from error


@dead.command("discard")
@click.argument("ids", nargs=-1)
@selection_options
@all_option
@force_option
@json_option
@click.pass_context
def discard(
    ctx: click.Context, /, ids: tuple[str, ...], *, everything: bool, force: bool, as_json: bool, **wanted: Any
) -> None:
    """Delete dead letters: those with these IDS, or all that are like the options say.  There is no way back."""
    with letters_of(ctx) as letters:
        chosen = _choose(letters, ids, selection_of(ctx, wanted), everything=everything)
        _confirm("Delete", chosen, force=force or bool(ids))
        _report(ids, letters.discard_all(chosen), "discarded", as_json=as_json)


def _choose(letters: DeadLetters, ids: Sequence[str], selection: Selection, *, everything: bool) -> list[str]:
    """Ids, newest first.  One of the three ways of choosing must be used, and only one."""
    if (bool(ids), selection != EVERYTHING, everything).count(True) != 1:
        raise click.UsageError("Name ids, or choose with options such as --task and --reason, or say --all.")
    if ids:
        return list(reversed(dict.fromkeys(ids)))
    return [letter.kept.id for letter in letters.select(selection)]


def _confirm(verb: str, chosen: Sequence[str], *, force: bool) -> None:
    if chosen and not force:
        click.confirm(f"{verb} {counted(len(chosen), 'dead letter')}?", abort=True, err=True)


def _report(named: Sequence[str], acted: Acted, done: str, *, as_json: bool) -> None:
    """Say what was done; what was named and is not there makes the command fail in the end."""
    if as_json:
        echo_json({done: len(acted.done), "missing": acted.missing})
    else:
        click.echo(f"{done.capitalize()} {counted(len(acted.done), 'dead letter')}.")
    if acted.missing and named:
        raise click.ClickException(f"Not among the dead letters: {', '.join(acted.missing)}.")


dead.add_command(edit)
