"""The shop's customers: they upload photos and post orders, through the API alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo.children import DemoError
from demo.crash import Crash, kill_busy_slot
from demo.orders import SIZES, make_bad_orders, make_order
from demo.patterns import Lesson
from demo.progress import RunProgress
from demo.system import System, image_slots

CRASH_AFTER = 0.4
"""Share of the orders after which a slot is killed."""

STALL_SECONDS = 45.0
"""Without any task done for so long, what is missing will not come."""


@dataclass(slots=True)
class Visit:
    """What the customers did."""

    posted: dict[str, float] = field(default_factory=dict)
    """By order id: when it was posted, in seconds since the epoch."""
    crash: Crash | None = None
    lessons: list[Lesson] = field(default_factory=list)
    """What went wrong on purpose."""


def upload_photos(client: httpx.Client, paths: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """Upload photos; yield each with its name at the shop, or with an empty one and the reason why it was refused."""
    for path in paths:
        answer = client.post("/photos", content=path.read_bytes(), headers={"content-type": "image/jpeg"})
        if answer.is_success:
            yield path, answer.json()["photo"], ""
        else:
            yield path, "", _reason(answer)


def post_bad_orders(client: httpx.Client, photo: str) -> list[tuple[int, str]]:
    """Post orders that must be refused; return each one's status and the reason given."""
    answers = [client.post("/orders", json=order) for order in make_bad_orders(photo)]
    return [(answer.status_code, _reason(answer)) for answer in answers]


def _reason(answer: httpx.Response) -> str:
    if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
        return f"{answer.status_code} {answer.text[:200]}"
    errors = answer.json()["detail"]
    return "; ".join(
        f"{'.'.join(str(step) for step in error['loc'][1:])}: {error['msg']}".lstrip(": ") for error in errors
    )


class Customers:
    """Post orders, keep a progress bar, and watch until everything is done.

    A customer comes when an earlier one's pictures are ready, as many at a time as there are slots: the latencies in
    the table are those of a busy shop, not of a queue that is longer than the workers can serve.

    Args:
        system: the running reference system.
        client: for its API.
        progress: follows its journal.
        bar: to draw on.
    """

    def __init__(self, system: System, client: httpx.Client, progress: RunProgress, bar: Progress) -> None:
        self._system = system
        self._client = client
        self._progress = progress
        self._bar = bar
        self._visit = Visit()

    def run(self, orders: Iterable[dict[str, Any]], total: int) -> Visit:
        """Post all orders and wait until all mails are out, or until nothing moves any more.

        Raises:
            DemoError: a process ended, or an order was refused.
        """
        rows = [self._bar.add_task(name, total=count) for name, count in _stages(total)]
        waiting = iter(orders)
        last_done, last_move = -1, time.monotonic()
        while len(self._progress.ended_orders()) < total:
            self._step(waiting, total)
            self._draw(rows)
            if (done := self._progress.tasks_done()) != last_done:
                last_done, last_move = done, time.monotonic()
            if time.monotonic() - last_move > STALL_SECONDS:
                break
            time.sleep(0.005)
        return self._visit

    def _step(self, waiting: Iterator[dict[str, Any]], total: int) -> None:
        self._progress.update()
        self._system.children.check()
        if len(self._visit.posted) - len(self._progress.receipts | self._progress.failed_orders) < image_slots():
            order = next(waiting, None)
            if order is not None:
                self._post(order)
        if self._visit.crash is None and len(self._visit.posted) >= CRASH_AFTER * total:
            self._crash()

    def _crash(self) -> None:
        crash = kill_busy_slot(self._system.image_pool.process.pid, self._progress)
        if crash is not None:
            task = crash.task
            self._bar.console.print(
                f"  [red]SIGKILL[/] slot {task.pid}, while it made {task.order_id}'s {task.detail} picture"
            )
            self._visit.crash = crash

    def _post(self, order: dict[str, Any]) -> None:
        at = time.time()
        answer = self._client.post("/orders", json=order)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise DemoError(f"Order {order['id']} was refused: {_reason(answer)}")
        self._visit.posted[order["id"]] = at

    def _draw(self, rows: list[TaskID]) -> None:
        done = self._progress.done
        counts = (len(self._visit.posted), len(done["resize"]), len(done["write_receipt"]), len(self._progress.mailed))
        for row, count in zip(rows, counts, strict=True):
            self._bar.update(row, completed=count)


def orders(seed: int, count: int, photos: list[str]) -> Iterator[dict[str, Any]]:
    return (make_order(seed, number, photos) for number in range(1, count + 1))


def progress_bar() -> Progress:
    return Progress(TextColumn("  {task.description:<9}"), BarColumn(60), MofNCompleteColumn(), TimeElapsedColumn())


def _stages(total: int) -> list[tuple[str, int]]:
    return [("orders", total), ("pictures", total * len(SIZES)), ("receipts", total), ("mails", total)]
