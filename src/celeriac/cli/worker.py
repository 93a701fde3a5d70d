"""``celeriac worker``: Celery's options, and those of the HTTP endpoint."""

from __future__ import annotations

from typing import Any

import click

from celeriac.compat.command_line import CeleryDaemonCommand, CeleryOption, run_worker, worker_parameters

HTTP_PORT = CeleryOption(
    ["--http-port"],
    type=int,
    help_group="Monitoring",
    help="Answer /metrics (Prometheus), /livez and /readyz on this port.",
)
HTTP_HOST = CeleryOption(
    ["--http-host"],
    help_group="Monitoring",
    help="Address for --http-port. Default: all, because probes and scrapers come from elsewhere.",
)


@click.pass_context
def _worker(ctx: click.Context, /, **options: Any) -> None:
    run_worker(ctx, **options)


worker = CeleryDaemonCommand(
    name="worker",
    callback=_worker,
    params=[*worker_parameters(), HTTP_PORT, HTTP_HOST],
    context_settings={"allow_extra_args": True},
    help="""Start a worker.

    \b
    celeriac -A proj worker --loglevel=INFO --concurrency=4
    celeriac -A proj worker --pool=threads --concurrency=50 -Q emails
    celeriac -A proj worker --pool=asyncio --http-port=9808
    """,
)
