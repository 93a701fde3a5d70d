"""Structured logs: a formatter that makes JSON of any log record, and a listener that logs events."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from celeriac.outcome import State
from celeriac.telemetry.events import (
    BatchSettled,
    BrokerBack,
    BrokerLost,
    Event,
    EventsDropped,
    LeaseFenced,
    OwnerRescued,
    SlotExited,
    SlotStarted,
    TaskDeadLettered,
    TaskFinished,
    TaskRescued,
    WorkerReady,
    WorkerStopped,
    WorkerStopping,
)

EVENT_LOGGER = "celeriac.telemetry"
"""Name of the logger to which :class:`EventLog` writes."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Mapping[type[Event], int] = {
    TaskDeadLettered: logging.ERROR,
    TaskRescued: logging.WARNING,
    LeaseFenced: logging.WARNING,
    OwnerRescued: logging.WARNING,
    SlotStarted: logging.INFO,
    BrokerLost: logging.ERROR,
    BrokerBack: logging.WARNING,
    WorkerReady: logging.INFO,
    WorkerStopping: logging.INFO,
    WorkerStopped: logging.INFO,
    EventsDropped: logging.WARNING,
    BatchSettled: logging.DEBUG,
}
_PLANNED_EXITS = frozenset({"shutdown", "scaled_down", "max_tasks", "max_memory"})
_UNHAPPY_STATES = frozenset({State.FAILED.value, State.RETRYING.value})


class JSONFormatter(logging.Formatter):
    """One JSON object per line, for any record: ``time`` (UTC), ``level``, ``logger``, ``message``, ``process``,
    ``thread``, whatever was passed as ``extra``, and ``exception`` with the traceback.

    A value that JSON does not know is written as its ``str``; formatting never raises.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line end."""
        fields = self._fields(record)
        try:
            return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_text)
        except (TypeError, ValueError, RecursionError):  # NaN, a circle, keys that are no strings
            return json.dumps({str(key): _text(value) for key, value in fields.items()}, ensure_ascii=False)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "process": record.process,
            "thread": record.threadName,
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        measures = extra.pop("measures", None)
        fields |= extra | (measures if isinstance(measures, dict) else {})
        trace = self._trace(record)
        return fields | ({"exception": trace} if trace else {})

    def _trace(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[0] is not None:
            return self.formatException(record.exc_info)
        return record.exc_text or ""


class EventLog:
    """A listener that logs events on ``celeriac.telemetry``: text for people, measures as fields for machines.

    What happens to every task is ``DEBUG`` (a success ``INFO``, a failure or retry ``WARNING``); a dead letter and a
    lost broker are ``ERROR``.  In the supervisor it only hears single task events when the slots' relays send them.

    Args:
        logger: where to; by default the logger ``celeriac.telemetry``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(EVENT_LOGGER)

    def __call__(self, event: Event) -> None:
        """Log an event, if its level is enabled."""
        level = level_of(event)
        if not self._logger.isEnabledFor(level):
            return
        name, measures = type(event).__name__, event._asdict()
        text = " ".join(f"{key}={value}" for key, value in measures.items() if value not in (None, ""))
        self._logger.log(level, "%s %s", name, text, extra={"event": name, "measures": measures})


def level_of(event: Event) -> int:
    """The level at which an event is logged."""
    if isinstance(event, TaskFinished):
        return logging.WARNING if event.state in _UNHAPPY_STATES else logging.INFO
    if isinstance(event, SlotExited):
        return logging.INFO if event.reason in _PLANNED_EXITS else logging.WARNING
    return _LEVELS.get(type(event), logging.DEBUG)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit their format: better half a message than none
        return f"{record.msg} {record.args}"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
