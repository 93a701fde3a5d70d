"""Celery's beat scheduler over the shared store: what ``celeriac beat`` and ``worker -B`` run by default."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from typing import Any

from celery import states as task_states
from celery.beat import Scheduler

from celeriac.compat import connect
from celeriac.compat.durations import seconds
from celeriac.compat.periodic import entries
from celeriac.compat.periodic.sending import TickSender, TickTaken
from celeriac.compat.periodic.state import EntryState, States
from celeriac.compat.periodic.ticks import Ticks
from celeriac.engine.leader import Leader
from celeriac.errors import StoreError

logger = logging.getLogger("celery.beat")

OFFICE = "beat"

LOOK_SECONDS = 1.0
"""Longest time between two looks at the store: how soon a pause or an edit is noticed.  Each look is one round trip."""

AWAY_SECONDS = 1.0
"""Pause after the store did not answer."""

FORGOTTEN_AFTER = 86_400.0
"""Seconds after which a run without a trace in the result store counts as ended where results never expire: its message was
purged, or it keeps no result.
"""


class StoreScheduler(Scheduler):
    """Sends each tick once, whichever of the schedulers that run leads.

    Raises ``ConfigurationError`` where neither broker nor result store can keep the schedule's state; Celery's own
    ``celery.beat:PersistentScheduler`` (``-S``) works there, one process at a time.
    """

    Entry = entries.Entry

    def __init__(self, app: Any, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self.sent = 0
        """Ticks that this object has sent."""
        self._leads: bool | None = None
        self._ticks: dict[str, tuple[Any, Ticks]] = {}
        if not lazy:
            store = connect.open_key_values(app)
            name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
            self.leader = Leader(store, OFFICE, name, float(app.conf.get("celeriac_beat_lease") or 10.0))
            self.store = store
            self.states = States(store)
            self.sender = TickSender(app, store)
        super().__init__(app, *args, lazy=lazy, **kwargs)

    # -- the loop --------------------------------------------------------------------------------------------------

    def tick(self, *_: Any, **__: Any) -> float:
        """Do what is due, if this is the leader; return the seconds until the next call."""
        try:
            if not self._lead():
                return self.leader.pause
            return min(self.run_due(), self.leader.pause, self.max_interval, LOOK_SECONDS)
        except StoreError as error:
            logger.warning("beat: %s. Trying again", error)
            return AWAY_SECONDS

    def _lead(self) -> bool:
        leads = self.leader.hold()
        if leads is not self._leads:
            self._leads = leads
            if leads:
                logger.info("beat: this scheduler leads now (%s)", self.leader.name)
            else:
                logger.info("beat: standing by; %s leads", self.leader.rival)
        return leads

    def run_due(self) -> float:
        """Send all that is due, whoever leads; return the seconds until the next tick."""
        now, known = self.states.read(list(self.schedule))
        return min(
            (self._serve(entry, known[name], now) for name, entry in self.schedule.items()), default=LOOK_SECONDS
        )

    def _serve(self, configured: entries.Entry, state: EntryState | None, now: float) -> float:
        try:
            if state is None:
                state = self.states.start(configured.name)
            if state.paused:
                return LOOK_SECONDS
            return self._send_due(configured.edited(state.changes), state, now)
        except StoreError:
            raise
        except Exception:
            # One entry that cannot be calculated or sent must not stop the others.
            logger.exception("beat: %s failed; trying again in %g s", configured.name, self.max_interval)
            return float(self.max_interval)

    def _send_due(self, entry: entries.Entry, state: EntryState, now: float) -> float:
        due = self._ticks_of(entry).due(state.last, now)
        try:
            for tick in due.ticks:
                state = self._send(entry, state, tick, now)
                if state.last != tick:
                    return 0.0  # another scheduler is further on: what comes next is to be worked out from there
        except TickTaken:
            return LOOK_SECONDS
        if due.last != state.last:
            self.states.advance(entry.name, state.last, last=due.last)
        return due.wait

    def _ticks_of(self, entry: entries.Entry) -> Ticks:
        found = self._ticks.get(entry.name)
        if found is None or found[0] != (entry.schedule, entry.missed):
            found = self._ticks[entry.name] = ((entry.schedule, entry.missed), entry.ticks())
        return found[1]

    def _send(self, entry: entries.Entry, state: EntryState, tick: float, now: float) -> EntryState:
        if not entry.overlap and self._still_runs(state, now):
            logger.warning("beat: %s is not sent: its last run (%s) has not ended", entry.name, state.task_id)
            return self.states.advance(entry.name, state.last, last=tick, skipped=state.skipped + 1)
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        task_id = self.sender.send(entry, state, tick)
        if task_id is None:
            logger.info("beat: %s was sent by another scheduler", entry.name)
            return self.states.advance(entry.name, state.last, last=tick)
        self.sent += 1
        return self.states.advance(
            entry.name, state.last, last=tick, count=state.count + 1, task_id=task_id, sent_at=now
        )

    def _still_runs(self, state: EntryState, now: float) -> bool:
        if not state.task_id:
            return False
        if self.app.backend.get_state(state.task_id) in task_states.READY_STATES:
            return False
        return now - state.sent_at < (seconds(self.app.conf.result_expires) or FORGOTTEN_AFTER)

    # -- the rest of Celery's interface ----------------------------------------------------------------------------

    def close(self) -> None:
        """Let another scheduler take over at once."""
        try:
            self.leader.resign()
        except StoreError as error:
            logger.debug("beat: %s", error)
        super().close()

    @property
    def info(self) -> str:
        """For the banner."""
        return "    . state -> in the broker or the result store; safe to run many"
