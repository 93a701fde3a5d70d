"""The ``celeriac`` command: Celery's command line with this package's worker behind ``worker``, and more beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from celeriac.cli.acl import acl
from celeriac.cli.beat import beat
from celeriac.cli.breakers import breakers
from celeriac.cli.dead import dead
from celeriac.cli.limits import limits
from celeriac.cli.migrate_store import migrate_store
from celeriac.cli.multi import multi
from celeriac.cli.progress import cancel, progress
from celeriac.cli.purge import purge
from celeriac.cli.queues import queues
from celeriac.cli.release import release
from celeriac.cli.retries import retries
from celeriac.cli.schedule import schedule
from celeriac.cli.worker import worker
from celeriac.compat.command_line import celery_group
from celeriac.compat.handover import patch_first
from celeriac.compat.wrapped import install
from celeriac.errors import CeleriacError

OWN_COMMANDS = (
    acl,
    worker,
    multi,
    beat,
    dead,
    queues,
    retries,
    schedule,
    release,
    purge,
    progress,
    cancel,
    migrate_store,
    breakers,
    limits,
)


def command() -> click.Group:
    """Celery's command group, with this package's commands in place of or beside its own."""
    group = celery_group()
    for own in OWN_COMMANDS:
        group.add_command(own)
    return group


def main() -> Any:
    """Entry point of ``celeriac``."""
    patch_first()
    install()
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    try:
        return command()(prog_name="celeriac", auto_envvar_prefix="CELERY")
    except CeleriacError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
