"""``celeriac beat``: Celery's options, with a scheduler that may run many times, and one step of it for a CronJob."""

from __future__ import annotations

from typing import Any

import click

from celeriac.cli.store import plain_errors
from celeriac.compat.command_line import CeleryDaemonCommand, CeleryOption, beat_parameters, run_beat
from celeriac.compat.periodic.choice import store_scheduler

ONCE = CeleryOption(
    ["--once"],
    is_flag=True,
    help_group="Beat Options",
    help="Send what is due now and exit: for a Kubernetes CronJob.  It may run beside other schedulers.",
)


@click.pass_context
def _beat(ctx: click.Context, /, *, once: bool, **options: Any) -> None:
    with plain_errors():
        if once:
            _run_once(ctx)
        else:
            run_beat(ctx, **options)


def _run_once(ctx: click.Context) -> None:
    app = ctx.obj.app
    app.loader.init_worker()
    app.finalize()
    scheduler = store_scheduler(app)
    before = scheduler.sent
    scheduler.run_due()
    scheduler.close()
    click.echo(f"{scheduler.sent - before} of {len(scheduler.schedule)} periodic tasks were due and are sent.")


beat = CeleryDaemonCommand(
    name="beat",
    callback=_beat,
    params=[*beat_parameters(), ONCE],
    context_settings={"allow_extra_args": True},
    help="""Send periodic tasks when they are due.

    Any number may run, and `worker -B` beside them: one leads, the others stand by, and each tick is sent once.

    \b
    celeriac -A proj beat --loglevel=INFO
    celeriac -A proj beat --once                  from a CronJob
    celeriac -A proj beat -S django               another scheduler, as in Celery
    """,
)
