"""``celeriac acl``: least privilege for producers, workers and monitors."""

from __future__ import annotations

from dataclasses import asdict

import click

from celeriac.access import PASSWORD, ROLES
from celeriac.cli.output import echo_json
from celeriac.cli.store import plain_errors, queues_of
from celeriac.compat.access import KINDS, roles


@click.command()
@click.argument("store", type=click.Choice(sorted(KINDS)))
@click.option("--role", "-r", "chosen", multiple=True, type=click.Choice(ROLES), help="Only this one. Default: all.")
@click.option("--queues", "-Q", "queues", multiple=True, metavar="NAMES", help="Only these (a list with commas).")
@click.option("--user-prefix", default="celeriac-", show_default=True, help="What the users' names begin with.")
@click.option(
    "--control",
    is_flag=True,
    help="Let monitors send control commands (Flower, inspect): they can then stop workers, too.",
)
@click.option(
    "--redis-6", "redis_6", is_flag=True, help="For Redis 6.2, which has no selectors (and so less to hold back)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def acl(  # noqa: PLR0913 - one argument for each option
    ctx: click.Context,
    store: str,
    chosen: tuple[str, ...],
    queues: tuple[str, ...],
    *,
    user_prefix: str,
    control: bool,
    redis_6: bool,
    as_json: bool,
) -> None:
    r"""Print what gives producers, workers and monitors the rights that they need, and no more.

    \b
    celeriac -A proj acl redis | sed "s/CHANGE-ME/$(pwgen 32 1)/" | redis-cli
    celeriac -A proj acl postgres --role producer
    """
    with plain_errors():
        names = queues_of(ctx, queues)
        found = roles(ctx.obj.app, store, names, user_prefix, control=control, selectors=not redis_6)
    found = [role for role in found if not chosen or role.name in chosen]
    if as_json:
        echo_json([asdict(role) for role in found])
        return
    mark = {"redis": "", "rabbitmq": "# ", "postgres": "-- "}[store]
    for role in found:
        if mark:
            for line in (f"{role.name}; put its own password in the place of {PASSWORD}", *role.notes):
                click.echo(f"{mark}{line}")
        for note in () if mark else role.notes:
            click.echo(f"{role.name}: {note}", err=True)
        for statement in role.statements:
            click.echo(statement)
