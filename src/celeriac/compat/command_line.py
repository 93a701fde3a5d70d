"""Celery's command line, with the app upgraded on the way in."""

from __future__ import annotations

from typing import Any

import click
from celery import __version__ as celery_version
from celery.bin import beat as celery_beat
from celery.bin import worker as celery_worker
from celery.bin.base import CeleryCommand, CeleryDaemonCommand, CeleryOption, handle_preload_options
from celery.bin.celery import celery as original
from celery.exceptions import SecurityError
from celery.platforms import detached, maybe_drop_privileges
from celery.utils.log import get_logger
from celery.utils.nodenames import node_format

from celeriac.compat.app import upgrade
from celeriac.compat.daemon import detach
from celeriac.compat.handover import GREEN, celerys_pool
from celeriac.compat.options import POOLS, pool_name
from celeriac.compat.periodic.choice import scheduler_class
from celeriac.errors import ConfigurationError
from celeriac.version import __version__

logger = get_logger(__name__)

__all__ = [
    "CeleryCommand",
    "CeleryDaemonCommand",
    "CeleryOption",
    "beat_parameters",
    "celery_group",
    "run_beat",
    "run_worker",
    "worker_parameters",
]


def celery_group() -> click.Group:
    """A copy of Celery's command group whose app is upgraded before any command sees it."""
    return type(original)(
        name="celeriac",
        callback=_with_upgrade,
        params=original.params,
        help="Celeriac: Celery's commands with an engine many times faster that loses nothing.",
        invoke_without_command=original.invoke_without_command,
        commands=dict(original.commands),
    )


@click.pass_context
def _with_upgrade(context: click.Context, /, **options: Any) -> Any:
    assert original.callback is not None
    if options["version"]:
        click.echo(f"celeriac {__version__} (celery {celery_version})")
        context.exit()
    result = context.invoke(original.callback, **options)
    app = upgrade(context.obj.app)
    _add_user_options(context.command, app.user_options)
    return result


def _add_user_options(group: Any, user_options: Any) -> None:
    """An app's own options (``app.user_options``).  Celery has added them to its own commands, ours are others."""
    preload = list(user_options.get("preload", ()))
    for name, command in group.commands.items():
        if original.commands.get(name) is not command:
            command.params.extend([*user_options.get(name, ()), *preload])


class PoolName(click.ParamType):
    """One of this package's pools, or Celery's name of it."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check it.  Fails with what to take in place of a pool that there is not."""
        try:
            if celerys_pool(value) is None:
                pool_name(value, None)
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What ``--help`` shows."""
        return f"[{'|'.join(sorted([*POOLS, *GREEN]))}]"


def worker_parameters() -> list[click.Parameter]:
    """The options of ``celery worker``, with this package's pools."""
    added = {each.name for each in CeleryDaemonCommand(name="worker").params}
    parameters = [each for each in celery_worker.worker.params if each.name not in {"pool", "pool_cls", *added}]
    pool = CeleryOption(
        ["-P", "--pool", "pool_cls"],
        type=PoolName(),
        help_group="Pool Options",
        help="How tasks run: processes (or prefork) for CPU-bound ones, threads for those that wait, asyncio for many async "
        "def tasks at once, solo for debugging. async def tasks run in all of them. gevent, eventlet and classes "
        "(package.module:Class): Celery's own worker runs, without leases and patterns. Default: processes.",
    )
    return [*parameters, pool]


@handle_preload_options
def run_worker(ctx: click.Context, **options: Any) -> None:
    """Start a worker with the options of ``celery worker``."""
    app = ctx.obj.app
    hostname = options.pop("hostname", None)
    if ctx.args:
        try:
            app.config_from_cmdline(ctx.args, namespace="worker")
        except (KeyError, ValueError) as error:
            raise click.UsageError(
                f"Unable to parse extra configuration from the command line: {error}", ctx
            ) from error
    if options.get("disable_prefetch") is not None:
        app.conf.worker_disable_prefetch = options.pop("disable_prefetch")
    daemon = {name: options.pop(name, None) for name in ("uid", "gid", "umask", "executable")}
    if options.pop("detach", False):
        ctx.exit(detach(app, hostname, options["logfile"], options["pidfile"], **daemon))
    kind = app.Worker  # all that it is made of is read while we may still read everything
    maybe_drop_privileges(uid=daemon["uid"], gid=daemon["gid"])
    try:
        worker = kind(
            hostname=hostname,
            pidfile=node_format(options.pop("pidfile", None), hostname),
            no_color=ctx.obj.no_color,
            quiet=ctx.obj.quiet,
            **options,
        )
    except SecurityError as error:  # root and pickle: Celery's text says what to do
        ctx.obj.error(error.args[0])
        ctx.exit(1)
    worker.start()
    ctx.exit(worker.exitcode or 0)


def beat_parameters() -> list[click.Parameter]:
    """The options of ``celery beat``, whose scheduler is this package's when none is named."""
    added = {each.name for each in CeleryDaemonCommand(name="beat").params}
    scheduler = CeleryOption(
        ["-S", "--scheduler"],
        help_group="Beat Options",
        help="Scheduler class to use.  Default: one that keeps its state in the store and may run many times.",
    )
    own = [each for each in celery_beat.beat.params if each.name not in {"scheduler", *added}]
    return [*own, scheduler]


@handle_preload_options
def run_beat(ctx: click.Context, **options: Any) -> None:
    """Run a scheduler with the options of ``celery beat``."""
    app = ctx.obj.app
    if ctx.args:
        try:
            app.config_from_cmdline(ctx.args)
        except (KeyError, ValueError) as error:
            raise click.UsageError(
                f"Unable to parse extra configuration from the command line: {error}", ctx
            ) from error
    privileges = {name: options.pop(name, None) for name in ("uid", "gid")}
    daemon = {name: options.pop(name, None) for name in ("logfile", "pidfile", "umask", "workdir")}
    detach = options.pop("detach")
    options["scheduler"] = scheduler_class(app, options.pop("scheduler"))

    def serve() -> None:
        app.Beat(logfile=daemon["logfile"], pidfile=daemon["pidfile"], quiet=ctx.obj.quiet, **options).run()

    if detach:
        with detached(
            daemon["logfile"], daemon["pidfile"], **privileges, umask=daemon["umask"], workdir=daemon["workdir"]
        ):
            serve()
    else:
        maybe_drop_privileges(**privileges)
        serve()
