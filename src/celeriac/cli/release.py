"""``celeriac release``: put back what stock Celery workers would not see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

import click

from celeriac.broker import Broker
from celeriac.cli.output import Age, counted, describe_age, echo_json
from celeriac.cli.store import broker_of, queues_of
from celeriac.compat.rescue import open_rescuer

OWNER_SECONDS = 60.0
"""How long this command may hold what it moves, should it die."""

LANES, BATCH = 50, 200
"""How many lanes, and messages of each, are moved in one go."""

PAUSE = 0.5
"""Seconds between two looks while waiting."""

ATTENTION = 1
"""Exit code when something is left that a later call can return."""


@dataclass(frozen=True, slots=True)
class Released:
    """What a release has done, and what is left."""

    returned: int
    """Messages that are back in their queues from the leases of owners that are gone."""
    dead_lettered: int
    """Messages of such owners that may have run already and must not run twice (early acknowledgement)."""
    promoted: int
    """Scheduled messages that were due."""
    unparked: int
    """Messages that waited for a limit, back in their queues."""
    leased: int
    """Messages that are still leased."""
    scheduled: int
    """Messages that are still scheduled."""
    next_due: float | None
    """Seconds until the first of these is due."""

    @property
    def complete(self) -> bool:
        """Whether everything is where a stock worker finds it."""
        return not self.leased and not self.scheduled


@click.command()
@click.option("--queues", "-Q", "chosen", multiple=True, metavar="NAMES", help="Only these (a list with commas).")
@click.option(
    "--wait",
    type=Age(),
    default=0.0,
    help="Wait so long (90s, 10m, 2h) for workers to end, their leases to run out and scheduled messages to be due.",
)
@click.option("--force", "-f", is_flag=True, help="Go on although workers are alive.  What they hold stays theirs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def release(ctx: click.Context, chosen: tuple[str, ...], wait: float, *, force: bool, as_json: bool) -> None:
    """Return what is leased or scheduled to the queues, for going back to stock Celery.

    Stop the Celeriac workers first (a warm shutdown returns what they hold by itself).  A worker that was killed counts
    as alive until its lease has run out, 30 seconds by default.  The exit code is 0 when nothing is left.
    """
    deadline = time.monotonic() + wait
    with broker_of(ctx) as broker:
        names = queues_of(ctx, chosen)
        if not force:
            _wait_for_workers(broker, names, deadline)
        released = release_until(broker, names, open_rescuer(ctx.obj.app, broker).rescue, deadline)
    if as_json:
        echo_json(asdict(released))
    else:
        _report(released)
    if not released.complete:
        ctx.exit(ATTENTION)


def _wait_for_workers(broker: Broker, queues: Sequence[str], deadline: float) -> None:
    while alive := [depth for depth in broker.depth(queues) if depth.consumers]:
        if time.monotonic() >= deadline:
            served = ", ".join(f"{depth.queue} ({depth.consumers})" for depth in alive)
            raise click.ClickException(
                f"Celeriac workers are alive on: {served}.  Stop them first, or wait for those that were killed"
                " (--wait 1m), or go on without what they hold (--force)."
            )
        time.sleep(PAUSE)


def release_until(broker: Broker, queues: Sequence[str], rescue: Callable[[str], int], deadline: float) -> Released:
    """Release again and again until nothing is left or the time is up.

    Args:
        broker: the store.
        queues: whose scheduled messages are to be returned.  Leases are looked at in all queues.
        rescue: judges and settles all that an owner holds, and returns how many messages that were.
        deadline: by the monotonic clock, in seconds.
    """
    held, promoted, unparked, buried_before = 0, 0, 0, broker.dead_count()
    while True:
        held += rescue_expired(broker, rescue)
        moved, next_due = promote_due(broker, queues)
        promoted += moved
        unparked += unpark_all(broker, queues)
        buried = min(held, max(0, broker.dead_count() - buried_before))
        # Where the store delays messages itself, a stock worker gets them without our help.
        scheduled = sum(depth.scheduled for depth in broker.depth(queues)) if broker.promotes else 0
        released = Released(held - buried, buried, promoted, unparked, broker.leased_count(), scheduled, next_due)
        if released.complete or time.monotonic() >= deadline:
            return released
        time.sleep(PAUSE)


def rescue_expired(broker: Broker, rescue: Callable[[str], int]) -> int:
    """Rescue every owner whose time ran out; return how many messages they held."""
    count, seen = 0, set[str]()
    while fresh := [owner for owner in broker.expired() if owner not in seen]:
        count += sum(map(rescue, fresh))
        seen.update(fresh)
    return count


def unpark_all(broker: Broker, queues: Sequence[str]) -> int:
    """Put everything that waits for a limit back into its queue; return how many messages."""
    count, owner = 0, f"release:{uuid4()}"
    if not broker.lanes(queues, 1):
        return 0
    broker.register(owner, (), OWNER_SECONDS)
    while lanes := broker.lanes(queues, LANES):
        for deliveries in broker.unpark(owner, [replace(lane, count=min(lane.count, BATCH)) for lane in lanes]):
            count += broker.release(owner, [delivery.tag for delivery in deliveries])
    broker.unregister(owner)
    return count


def promote_due(broker: Broker, queues: Sequence[str]) -> tuple[int, float | None]:
    """Move everything that is due to its queue; return how many, and in how many seconds the next one is due."""
    total = 0
    while True:
        moved, next_due = broker.promote(queues)
        total += moved
        if not moved or next_due is None or next_due > 0:
            return total, next_due


def _report(released: Released) -> None:
    click.echo(f"Returned {counted(released.returned, 'leased message')} and {released.promoted:,} scheduled.")
    if released.unparked:
        click.echo(f"Returned {counted(released.unparked, 'message')} that waited for a limit.")
    if released.dead_lettered:
        what = counted(released.dead_lettered, "message")
        click.echo(f"{what} may have run already: see `dead list --reason lost`, `dead replay`.")
    if released.leased:
        click.echo(f"Still leased, by workers that are alive or being rescued: {released.leased:,}.")
    if released.scheduled:
        due = describe_age(released.next_due)
        click.echo(f"Still scheduled: {released.scheduled:,}, the next one due in {due} (--wait).")
    if released.complete:
        click.echo("Nothing is left: everything is in the queues.")
