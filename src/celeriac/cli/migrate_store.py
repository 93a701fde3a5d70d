"""``celeriac migrate-store``: make or update the tables of PostgreSQL stores, as a role that may."""

from __future__ import annotations

import click

from celeriac.cli.output import counted
from celeriac.cli.store import plain_errors
from celeriac.compat import connect, connect_postgres


@click.command("migrate-store")
@click.option("--sql", is_flag=True, help="Print the SQL instead, for somebody else to run in one transaction.")
@click.option("--url", metavar="URL", help="Use this URL (and so this role) in place of the app's, with its schema.")
@click.pass_context
def migrate_store(ctx: click.Context, *, sql: bool, url: str | None) -> None:
    """Make or update the schema of the app's PostgreSQL broker and result store.

    Workers and producers do so by themselves when their role may create things.  Where it may not, run this with a role
    that may, before new code is started: `celeriac -A app migrate-store --url postgresql://owner:…@host/database`.
    """
    with plain_errors():
        stores = connect_postgres.stores(
            connect.broker_url(ctx.obj.app), connect.result_url(ctx.obj.app), ctx.obj.app, url
        )
        if not stores:
            raise click.ClickException("Neither the app's broker nor its result store is at a postgresql:// URL.")
        for store in stores:
            if sql:
                click.echo(store.script())
                continue
            done = store.migrate()
            what = f"{counted(len(done), 'migration')} applied" if done else "nothing to do"
            click.echo(f"{store.url}, schema {store.options.schema}: {what}, version {store.version()}.")
