"""``celeriac dead edit``: change a dead letter's message and send it again."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from celeriac.cli.output import Age, echo_json
from celeriac.cli.selection import load_tasks
from celeriac.cli.store import letters_of
from celeriac.compat.dead import DeadLetters

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command("edit")
@click.argument("id")
@click.option("--args", "args", metavar="JSON", help="New positional arguments: a list.")
@click.option("--kwargs", "kwargs", metavar="JSON", help="New named arguments: an object with all of them.")
@click.option("--task", "-t", metavar="NAME", help="Another task.")
@click.option("--queue", "-Q", metavar="NAME", help="Another queue.")
@click.option(
    "--eta", metavar="TIME", help="When to run it: 2026-01-31T09:00, in the machine's time zone unless it says another."
)
@click.option("--countdown", type=Age(), help="In how long to run it: 90s, 10m, 2h, 7d.")
@json_option
@click.pass_context
def edit(ctx: click.Context, /, id: str, *, as_json: bool, **changes: Any) -> None:
    """Change a dead letter's message and send it again, in one step.

    Without options it is opened in $EDITOR, as JSON; leave the file as it is, and nothing happens.  Arguments are checked where the
    task is known here and typed.
    """
    load_tasks(ctx)
    with letters_of(ctx) as letters:
        try:
            given = _given_changes(changes) or _from_editor(letters, id)
            done = letters.edit(id, **given)
        except LookupError:
            done = False
        except ValueError as error:  # InvalidPayload among them
            raise click.ClickException(str(error)) from error
    if not done:
        raise click.ClickException(f"There is no dead letter {id} (any more).")
    if as_json:
        echo_json({"replayed": 1, "id": id})
    else:
        click.echo("Replayed 1 dead letter, edited.")


def _given_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """What the options say.  Raises ``ValueError``."""
    given = {name: value for name, value in changes.items() if value is not None}
    for name, kind in (("args", list), ("kwargs", dict)):
        if name in given:
            given[name] = _json_of(name, given[name], kind)
    if "eta" in given:
        given["eta"] = datetime.fromisoformat(given["eta"])
    return given


def _json_of(name: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--{name} is no JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"--{name} is a JSON {'list' if kind is list else 'object'}, not {text}")  # noqa: TRY004 - of a text
    return value


def _from_editor(letters: DeadLetters, id: str) -> dict[str, Any]:
    """What the person made of it.  Raises ``LookupError``, ``ValueError``."""
    before = letters.document(id)
    text = click.edit(json.dumps(before, indent=2, ensure_ascii=False) + "\n", extension=".json")
    if text is None or (after := json.loads(text)) == before:
        raise click.ClickException("Nothing was changed; the dead letter stays.")
    if not isinstance(after, dict) or set(after) - set(before):
        raise ValueError(f"write an object with {', '.join(before)}")
    changed = {name: value for name, value in after.items() if value != before[name]}
    if changed.get("eta"):
        changed["eta"] = datetime.fromisoformat(changed["eta"])
    return changed
