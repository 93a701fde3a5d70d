"""What a running task says and asks about its own work."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from celery._state import get_current_task
from celery.worker import state as worker_state

from celeriac.compat import connect
from celeriac.compat.long_work.errors import Cancelled, CursorLost, NoTaskHere
from celeriac.keyvalue import Change, KeyValueStore, Namespace, data_of, held_value, holder_of
from celeriac.outcome import KeyWrite, Outcome, State
from celeriac.policies.progress import Progress

T = TypeVar("T")

WORK = "celeriac_work"
"""Where a request keeps its task's long work, once there is any."""

PROGRESS = Namespace("progress", listed=True)
CURSORS = Namespace("cursors")

REPORT_SECONDS = 0.5
"""Shortest time between two reports that go to the store, however often a task reports."""

PROGRESS_KEPT = 3600.0
"""Seconds for which the last report is kept: long enough that a slow step does not make a task vanish from view."""

FINAL_KEPT = 600.0
"""The same once the task has ended."""

SAVE_SECONDS = 1.0
"""How often a cursor goes to the store, and so how much work a crash costs.  Shorter costs round trips; longer repeats more."""

CURSOR_KEPT = 7 * 86_400.0
"""Seconds for which a cursor waits for its task to go on."""

OVER = frozenset({State.SUCCEEDED, State.FAILED, State.REVOKED, State.EXPIRED, State.IGNORED})
"""States after which a cursor has served."""


class Work:
    """The long work of one run of one task."""

    def __init__(self, app: Any, task: str, request: Any) -> None:
        self.task_id: str = request.id
        self._task = task
        self._worker: str = request.hostname or ""
        self._store: KeyValueStore = connect.key_values(app)
        self._progress: Progress | None = None
        self._reported = 0.0
        """When the last report went to the store, by a clock that does not jump."""
        self.cursor = Cursor(self._store, self.task_id, self)

    # -- progress --------------------------------------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the task is.  Costs a round trip at most twice a second; the last report is kept in any case."""
        now = time.time()
        if self._progress is None:
            self._progress = Progress(self._task, self.task_id, done, total, note, now, now, worker=self._worker)
        elif now - self._progress.at >= REPORT_SECONDS / 2 or done == total:
            self._progress = self._progress.further(done, total, note, now)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._report(PROGRESS_KEPT)

    def _report(self, ttl: float) -> None:
        self._reported = time.monotonic()
        assert self._progress is not None
        raw = self._progress.encode()
        self._store.update(PROGRESS, self.task_id, lambda _old, _now: Change(None, raw, ttl))

    # -- cancellation ----------------------------------------------------------------------------------------------

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled or revoked this task.  Costs nothing: the worker is told."""
        return self.task_id in worker_state.revoked

    def check_cancelled(self) -> None:
        """Raise :class:`Cancelled` if somebody has."""
        if self.is_cancelled():
            raise Cancelled("cancelled")

    # -- the end ---------------------------------------------------------------------------------------------------

    def closed(self, outcome: Outcome) -> Outcome:
        """The run's outcome, with what becomes of its cursor; the last report goes to the store."""
        if self._progress is not None:
            self._report(FINAL_KEPT if outcome.state in OVER else PROGRESS_KEPT)
        write = self.cursor.at_end(over=outcome.state in OVER)
        return outcome._replace(keys=(*outcome.keys, write)) if write is not None else outcome


class Cursor:
    """Where a task is in its work: a JSON value that its next run finds, however this one ends."""

    def __init__(self, store: KeyValueStore, name: str, work: Work) -> None:
        self._store = store
        self._name = name
        self._work = work
        self._holder = ""
        self._saved_at = 0.0
        self._unsaved: bytes | None = None

    def load(self, default: Any = None) -> Any:
        """The value that was saved last, by this run or an earlier one; ``default`` when there is none.

        From here on earlier runs that are still alive somewhere cannot save any more.
        """
        holder = uuid.uuid4().hex

        def take(old: bytes | None, _now: float) -> Change[bytes]:
            data = data_of(old) if old is not None else b""
            return Change(data, held_value(holder, data), CURSOR_KEPT)

        data = self._store.update(CURSORS, self._name, take)
        self._holder, self._unsaved = holder, None
        return json.loads(data) if data else default

    def save(self, value: Any, *, every: float = SAVE_SECONDS) -> None:
        """Keep a value for the next run.

        Args:
            value: anything that JSON has.
            every: seconds within which it goes to the store once; what is saved in between is kept for the task's end, and lost
                if its process dies.  0 keeps each at once.

        Raises:
            CursorLost: another run of this task has begun; this one must not go on.
        """
        if not self._holder:
            self.load()
        self._unsaved = json.dumps(value).encode()
        if time.monotonic() - self._saved_at >= every:
            self._write(self._unsaved)

    def _write(self, data: bytes) -> None:
        self._saved_at, self._unsaved = time.monotonic(), None

        def change(old: bytes | None, _now: float) -> Change[bool]:
            mine = old is not None and holder_of(old) == self._holder
            return Change(mine, held_value(self._holder, data), CURSOR_KEPT, keep=not mine)

        if not self._store.update(CURSORS, self._name, change):
            raise CursorLost(
                f"Another run of task {self._name} goes on from its cursor; this one was given up for dead"
            )

    def over(self, items: Iterable[T], *, total: int | None = None, every: float = SAVE_SECONDS) -> Iterator[T]:
        """Go through items, beginning behind the last one that an earlier run is known to have done.

        Reports the progress, and stops with :class:`Cancelled` when the task is cancelled.

        Args:
            items: the same ones in the same order in each run.  A sequence is entered at the right place; of anything else what
                is done is passed over.
            total: how many there are, where ``len()`` does not tell.
            every: as for :meth:`save`: an item that was done less than so many seconds before a crash is done again.
        """
        start = int(self.load(0))
        sized = hasattr(items, "__len__")
        total = len(items) if total is None and sized else total  # type: ignore[arg-type]
        rest = _from(items, start)
        for done, item in enumerate(rest, start + 1):
            self._work.check_cancelled()
            yield item
            self.save(done, every=every)
            self._work.progress(done, total)

    def at_end(self, *, over: bool) -> KeyWrite | None:
        """What is to be written with the run's outcome."""
        if not self._holder:
            return None
        if over:
            return KeyWrite(CURSORS.name, self._name, self._holder)
        if self._unsaved is None:
            return None
        return KeyWrite(CURSORS.name, self._name, self._holder, held_value(self._holder, self._unsaved), CURSOR_KEPT)


def _from(items: Iterable[T], start: int) -> Iterator[T]:
    if isinstance(items, range | list | tuple):
        return iter(items[start:]) if start else iter(items)
    return islice(items, start, None)


def current_work() -> Work:
    """The long work of the task that runs here.  Raises ``NoTaskHere``."""
    task = get_current_task()
    request = task.request_stack.top if task is not None else None
    if request is None or request.called_directly or not request.id:
        raise NoTaskHere("Progress, cursor and cancellation are those of a running task, and none runs here")
    own: dict[str, Any] = request.__dict__
    found = own.get(WORK)
    if found is None:
        found = own[WORK] = Work(task.app, task.name, request)
    work: Work = found
    return work


def progress_of(app: Any, task_id: str) -> Progress | None:
    """What a task last said of itself; ``None`` when it has not, or not for a while."""
    _, (entry,) = connect.key_values(app).read(PROGRESS, [task_id])
    return Progress.decode(entry.value) if entry else None


def all_progress(app: Any) -> list[Progress]:
    """What all tasks last said, the newest first."""
    store = connect.key_values(app)
    names = store.names(PROGRESS)
    _, entries = store.read(PROGRESS, names) if names else (0.0, [])
    return sorted((Progress.decode(entry.value) for entry in entries if entry), key=lambda each: -each.at)
