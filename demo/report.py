"""The table at the end."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.audit import Audit
from demo.customers import Visit
from demo.orders import SIZES
from demo.progress import RunProgress
from demo.settings import DEFAULT_HOME, HOME_VARIABLE, ShopSettings
from demo.system import celeriac_program

TASKS_PER_ORDER = len(SIZES) + 2
MOST_LINES = 12
"""Problems of one kind that are printed one by one."""


def problems(orders: int, progress: RunProgress, visit: Visit, found: Audit) -> list[str]:
    """Everything for which the demo must not end well: causes first, then what is missing on the disk."""
    lost = orders * TASKS_PER_ORDER - progress.tasks_done()
    lines = [f"{lost} tasks did not end well"] if lost else []
    if visit.crash is not None and _rescue_seconds(visit, progress) is None:
        lines.append(f"{visit.crash.task.order_id}: the task of the killed slot never started again")
    failed = [f"{entry.order_id}: {entry.task} {entry.detail} ended as {entry.state}" for entry in progress.failed]
    lines += [lesson.problem for lesson in visit.lessons if lesson.problem]
    return lines + _at_most(failed) + _at_most(found.problems)


def _at_most(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"… and {more} more"] if more > 0 else list(lines)


def results_table(progress: RunProgress, visit: Visit, found: Audit, refused_mails: int) -> Table:
    """All figures of a run."""
    orders = len(visit.posted)
    latencies = [at - visit.posted[order] for order, at in progress.mailed.items() if order in visit.posted]
    tasks = orders * TASKS_PER_ORDER
    table = Table(show_header=False, title="What happened", title_justify="left", title_style="bold")
    table.add_column(style="cyan")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    table.add_row("orders", str(orders), "posted through the API")
    table.add_row("tasks", str(progress.tasks_done()), f"{len(SIZES)} pictures, a receipt and a mail for each order")
    table.add_row(
        "retries", str(sum(progress.retries.values())), f"the mail server refused {refused_mails} mails for the moment"
    )
    table.add_row("rescued", str(len(progress.rescues)), _rescue_note(visit, progress))
    table.add_row(
        "send to start",
        _milliseconds(progress.waits, 50),
        f"median; 99th percentile {_milliseconds(progress.waits, 99)}",
    )
    table.add_row(
        "order to mail",
        _milliseconds(latencies, 50),
        f"median; 99th percentile {_milliseconds(latencies, 99)}, with the waits before retries",
    )
    table.add_section()
    for lesson in visit.lessons:
        table.add_row(lesson.name, lesson.figure, lesson.note, style="bold red" if lesson.problem else "")
    table.add_section()
    table.add_row("pictures", str(found.pictures), "opened and measured")
    table.add_row("mails", str(found.mails), f"in the mailbox; {found.duplicate_mails} duplicates")
    lost = tasks - progress.tasks_done()
    table.add_row("lost", str(lost), "", style="bold red" if lost else "bold green")
    return table


def print_places(console: Console, shop: ShopSettings) -> None:
    """Say where everything is."""
    places = {"pictures": shop.pictures, "receipts": shop.receipts, "mailbox": shop.mailbox, "logs": shop.logs}
    for name, folder in places.items():
        console.print(f"  {name:<9} {shorten(folder)}", highlight=False, soft_wrap=True)


def print_problems(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  [red]✗[/] {line}", soft_wrap=True)


def dead_letters_command(shop: ShopSettings) -> str:
    """What to type to see them."""
    home = "" if shop.home == DEFAULT_HOME.absolute() else f"{HOME_VARIABLE}={shlex.quote(str(shop.home))} "
    return f"{home}{shorten(Path(celeriac_program()))} -A demo.shop dead list"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def shorten(path: Path) -> str:
    """A path as short as it can be said."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _milliseconds(values: Sequence[float], percent: float) -> str:
    if not values:
        return "?"
    seconds = percentile(values, percent)
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _rescue_seconds(visit: Visit, progress: RunProgress) -> float | None:
    """From the kill to the second start of the body that the slot was running."""
    for rescue in progress.rescues:
        if visit.crash is not None and rescue.first == visit.crash.task:
            return rescue.again.at - visit.crash.at
    return None


def _rescue_note(visit: Visit, progress: RunProgress) -> str:
    if visit.crash is None:
        return "no slot was killed"
    seconds = _rescue_seconds(visit, progress)
    if seconds is None:
        return f"slot {visit.crash.task.pid} was killed"
    return f"slot {visit.crash.task.pid} was killed with SIGKILL; its task ran again {seconds * 1000:.0f} ms later"
