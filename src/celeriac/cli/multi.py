"""``celeriac multi``: start and stop several workers in the background."""

from __future__ import annotations

from typing import Any

import click

from celeriac.compat.daemon import run_multi


@click.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
@click.pass_context
def multi(ctx: click.Context, /, **_: Any) -> None:
    r"""Start and stop several workers in the background.

    \b
    celeriac -A proj multi start w1 w2 -c 3 --pidfile=/run/proj/%n.pid --logfile=/var/log/proj/%n%I.log
    celeriac -A proj multi restart w1 w2 --pidfile=/run/proj/%n.pid
    celeriac multi stopwait w1 w2 --pidfile=/run/proj/%n.pid
    celeriac multi show 3 -c 3 -c:1 10
    celeriac multi help
    """
    ctx.exit(run_multi(quiet=ctx.obj.quiet, no_color=ctx.obj.no_color))
