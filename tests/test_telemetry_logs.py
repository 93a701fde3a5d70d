"""Structured logs: lines that a machine can read, whatever was logged."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.outcome import State
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import (
    BrokerLost,
    Event,
    SlotExited,
    TaskDeadLettered,
    TaskFinished,
    TaskReceived,
)
from celeriac.telemetry.logs import EventLog, JSONFormatter, level_of


class Log:
    """A logger of the test's own, written as JSON."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(JSONFormatter())
        self.logger = logging.Logger("test.telemetry", logging.DEBUG)
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=pytest.fail) for line in self._stream.getvalue().splitlines()]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.handler.close()


def finished(state: State) -> TaskFinished:
    return TaskFinished("send", "mails", "id-1", state.value, 1000.0, 0.25, exception="")


def test_a_record_is_one_line_with_its_extras(log: Log) -> None:
    log.logger.warning("%d orders\nlate", 3, extra={"shop": "Umeå", "ids": (1, 2)})

    (line,) = log.lines()

    assert line["message"] == "3 orders\nlate"
    assert (line["level"], line["logger"], line["shop"], line["ids"]) == ("WARNING", "test.telemetry", "Umeå", [1, 2])
    assert line["time"].endswith("+00:00")


def test_an_exception_is_kept_with_its_traceback(log: Log) -> None:
    try:
        raise ValueError("bad order")
    except ValueError:
        log.logger.exception("failed")

    (line,) = log.lines()

    assert "ValueError: bad order" in line["exception"]
    assert "Traceback" in line["exception"]


@pytest.mark.parametrize("value", [float("nan"), object(), Unprintable(), {("a", 1): 2}, b"\xff"])
def test_a_value_that_json_does_not_know_still_makes_a_valid_line(log: Log, value: object) -> None:
    log.logger.info("odd", extra={"value": value})

    assert [line["message"] for line in log.lines()] == ["odd"]


def test_a_circle_and_wrong_arguments_still_make_a_valid_line(log: Log) -> None:
    circle: list[object] = []
    circle.append(circle)
    log.logger.info("%d", "no number", extra={"circle": circle})

    assert "no number" in log.lines()[0]["message"]


def test_an_event_is_logged_with_its_measures_as_fields(log: Log) -> None:
    bus = Bus()
    bus.subscribe(EventLog(log.logger))

    bus.emit(finished(State.SUCCEEDED))

    (line,) = log.lines()
    assert (line["event"], line["task"], line["ran_seconds"]) == ("TaskFinished", "send", 0.25)
    assert "ran_seconds=0.25" in line["message"]
    assert "exception=" not in line["message"]


def test_events_below_the_level_are_not_logged(log: Log) -> None:
    log.logger.setLevel(logging.INFO)

    EventLog(log.logger)(TaskReceived("send", "mails", "id-1"))

    assert log.lines() == []


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (TaskReceived("t", "q", "i"), logging.DEBUG),
        (finished(State.SUCCEEDED), logging.INFO),
        (finished(State.RETRYING), logging.WARNING),
        (finished(State.FAILED), logging.WARNING),
        (TaskDeadLettered("t", "q", "i", "poison"), logging.ERROR),
        (BrokerLost("redis://box", "refused"), logging.ERROR),
        (SlotExited("s", 1, "max_tasks"), logging.INFO),
        (SlotExited("s", 1, "crashed", -9), logging.WARNING),
    ],
)
def test_each_event_has_a_sensible_level(event: Event, level: int) -> None:
    assert level_of(event) == level
