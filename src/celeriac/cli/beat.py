"""``celeriac beat``: Celery's options, with a scheduler that may run many times, and one step of it for a CronJob."""

from __future__ import annotations

from typing import Any

import click

from celeriac.cli.output import echo_json
from celeriac.cli.store import plain_errors
from celeriac.compat.command_line import CeleryDaemonCommand, CeleryOption, beat_parameters, run_beat
from celeriac.compat.periodic.choice import store_scheduler

ONCE = CeleryOption(
    ["--once"],
    is_flag=True,
    help_group="Beat Options",
    help="Send what is due now and exit: for a Kubernetes CronJob.  It may run beside other schedulers.",
)

JSON = CeleryOption(
    ["--json", "as_json"],
    is_flag=True,
    help_group="Beat Options",
    help="With --once: print what was done as JSON, for programs.",
)


@click.pass_context
def _beat(ctx: click.Context, /, *, once: bool, as_json: bool, **options: Any) -> None:
    with plain_errors():
        if once:
            _run_once(ctx, as_json=as_json)
        elif as_json:
            raise click.UsageError("--json belongs to --once")
        else:
            run_beat(ctx, **options)


def _run_once(ctx: click.Context, *, as_json: bool) -> None:
    app = ctx.obj.app
    app.loader.init_worker()
    app.finalize()
    scheduler = store_scheduler(app)
    before = scheduler.sent
    scheduler.run_due()
    scheduler.close()
    if as_json:
        echo_json({"sent": scheduler.sent - before, "entries": len(scheduler.schedule)})
    else:
        click.echo(f"{scheduler.sent - before} of {len(scheduler.schedule)} periodic tasks were due and are sent.")


beat = CeleryDaemonCommand(
    name="beat",
    callback=_beat,
    params=[*beat_parameters(), ONCE, JSON],
    context_settings={"allow_extra_args": True},
    help="""Send periodic tasks when they are due.

    Any number may run, and `worker -B` beside them: one leads, the others stand by, and each tick is sent once.

    \b
    celeriac -A proj beat --loglevel=INFO
    celeriac -A proj beat --once                  from a CronJob
    celeriac -A proj beat -S django               another scheduler, as in Celery
    """,
)
