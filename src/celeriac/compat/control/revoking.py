"""Revokes tasks: so that they are not started, and, with ``terminate``, while they run."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from billiard.common import TERM_SIGNAME
from celery import states
from celery.platforms import signals as signal_names
from celery.utils.functional import maybe_list

from celeriac.compat.control.describe import ANSWER_SECONDS
from celeriac.compat.control.facade import State
from celeriac.engine.runner import Fate
from celeriac.engine.seats import SlotHandle
from celeriac.engine.supervisor import Supervisor

logger = logging.getLogger("celery.worker.control")

UNSTARTED = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})
"""States of tasks that may be marked as revoked at once.  Others belong to the worker that runs them, or are final."""

OBEY_SECONDS = 0.05
"""How long a slot gets to prepare an exception before a signal breaks the call that its task waits in."""

Runs = dict[str, tuple[SlotHandle, int]]
"""The slot and the tag of each running task, by task id."""


def revoke(state: State, task_ids: Iterable[str], *, terminate: bool, signame: str | None) -> dict[str, Any]:
    """Revoke tasks, whoever runs or will run them; the answer for the client."""
    ids = {str(task_id) for task_id in task_ids}
    # The slots hear of it before they say what they run: none of these is started after that.
    state.orders.revoke(ids)
    runs = running_tasks(state.supervisor)
    mark_revoked(state.app, ids - set(runs))
    if terminate:
        ended = [task_id for task_id in ids if task_id in runs and end(state.supervisor, *runs[task_id], signame)]
        return {"ok": f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown"}
    logger.info("Tasks flagged as revoked: %s", ", ".join(sorted(ids)))
    return {"ok": f"tasks {ids} flagged as revoked"}


def revoke_by_stamped_headers(
    state: State, headers: Any, terminate: bool = False, signal: str | None = None, **_: Any
) -> dict[str, Any]:
    """Keep tasks with certain stamps from being started; with ``terminate``, end those that run, too."""
    if isinstance(headers, (list, tuple)):
        headers = dict(header.split("=", 1) for header in headers)
    wanted = {name: list(maybe_list(values) or ()) for name, values in headers.items()}
    state.orders.revoke_stamped(wanted)
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    ended: dict[str, set[Any]] = {}
    for slot, runs, _waiting in state.supervisor.running(ANSWER_SECONDS):
        for tag, task in runs:
            found = matching(task.get("stamps") or {}, wanted)
            if found and end(state.supervisor, slot, tag, signal):
                for name, values in found.items():
                    ended.setdefault(name, set()).update(values)
    return {"ok": f"headers {ended} revoked" if ended else f"headers {headers} were not terminated"}


def matching(stamps: dict[str, Any], wanted: dict[str, list[Any]]) -> dict[str, set[Any]]:
    """Those of a task's stamps that are wanted, by header."""
    found = {name: set(maybe_list(stamps.get(name)) or ()) & set(values) for name, values in wanted.items()}
    return {name: values for name, values in found.items() if values}


def running_tasks(supervisor: Supervisor) -> Runs:
    """What runs in this node."""
    return {task["id"]: (slot, tag) for slot, runs, _ in supervisor.running(ANSWER_SECONDS) for tag, task in runs}


def mark_revoked(app: Any, task_ids: Iterable[str]) -> None:
    """Let those who wait for the results know at once, not when the message's turn comes."""
    for task_id in task_ids:
        try:
            if app.backend.get_state(task_id) in UNSTARTED:
                app.backend.mark_as_revoked(task_id, reason="revoked", store_result=True)
        except Exception as error:
            logger.warning("Task %s could not be marked as revoked: %s", task_id, error)


def end(supervisor: Supervisor, slot: SlotHandle, tag: int, signame: str | None) -> bool:
    """End a running task; return False when it has ended by itself.

    ``SIGUSR1`` raises ``SoftTimeLimitExceeded`` in the task, as it does in Celery.  A slot does not die of the signals that
    ask a process to end, and a task has no way to see them there, so those kill it like ``SIGKILL``.
    """
    number = signal_names.signum(signame or TERM_SIGNAME)
    logger.info("Terminating task %d of slot %d (%s)", tag, slot.number, signame or TERM_SIGNAME)
    if number == signal.SIGUSR1:
        interrupt(supervisor, slot, tag, "soft")
        return True
    if supervisor.settings.pool != "processes":
        interrupt(supervisor, slot, tag, "terminate")
        return True
    return kill_if_running(slot, tag, signame or TERM_SIGNAME)


def interrupt(supervisor: Supervisor, slot: SlotHandle, tag: int, reason: str) -> None:
    """Raise in the task.  In a main thread a signal breaks the call that it waits in; nothing breaks those of other threads."""
    slot.order("interrupt", tag, reason, 0.0)
    if supervisor.settings.pool in ("processes", "solo"):
        time.sleep(OBEY_SECONDS)
        os.kill(slot.pid, signal.SIGUSR1)


def kill_if_running(slot: SlotHandle, tag: int, signame: str) -> bool:
    """Kill a slot's process if it still runs this task.  It is stopped for the look, so that no other task is hit."""
    try:
        os.kill(slot.pid, signal.SIGSTOP)
        if any(entry.tag == tag for entry in slot.ledger.running()):
            slot.fates[tag] = (Fate.TERMINATED, signame)
            os.kill(slot.pid, signal.SIGKILL)
            return True
        os.kill(slot.pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
    return False
