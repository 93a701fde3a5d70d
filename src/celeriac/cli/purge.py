"""``celeriac purge``: Celery's command, which here also empties the schedule."""

from __future__ import annotations

import click

from celeriac.cli.output import counted
from celeriac.cli.store import broker_of, queues_of


@click.command()
@click.option("--force", "-f", is_flag=True, help="Do not ask first.")
@click.option("--queues", "-Q", "chosen", multiple=True, metavar="NAMES", help="Only these (a list with commas).")
@click.option("--exclude-queues", "-X", "excluded", multiple=True, metavar="NAMES", help="All but these.")
@click.pass_context
def purge(ctx: click.Context, chosen: tuple[str, ...], excluded: tuple[str, ...], *, force: bool) -> None:
    """Erase what waits or is scheduled in the app's queues.  There is no undo.

    What is leased by workers stays with them, and dead letters stay where they are.
    """
    spared = queues_of(ctx, excluded) if excluded else []
    names = [name for name in queues_of(ctx, chosen) if name not in spared]
    if not force:
        warning = click.style("WARNING", fg="red")
        question = f"{warning}: This will remove all tasks from: {', '.join(sorted(names))}.\nThere is no undo. Go on?"
        click.confirm(question, abort=True)
    with broker_of(ctx) as broker:
        erased = sum(broker.purge(name) for name in names)
        # RabbitMQ does not tell for which queue a delayed message is.
        delayed = 0 if broker.promotes or not names else broker.depth(names[:1])[0].scheduled
    if erased:
        click.echo(f"Purged {counted(erased, 'message')} from {counted(len(names), 'known task queue')}.")
    else:
        click.echo(f"No messages purged from {counted(len(names), 'queue')}.")
    if delayed:
        click.echo(f"{counted(delayed, 'delayed message')} of this virtual host's queues will still come.")
