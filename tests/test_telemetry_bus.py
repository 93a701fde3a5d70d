"""The bus: who hears what, and what a failing listener does to the rest."""

from __future__ import annotations

import logging
import os

import pytest

from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import Event, MessagesPromoted, TaskReceived

EVENT = TaskReceived("mail.send", "mails", "id-1")


class SoftTimeLimit(Exception):
    """Stands for what a signal raises in the middle of anything."""


def test_a_bus_says_whether_anybody_listens() -> None:
    bus = Bus()
    before = bus.listening
    unsubscribe = bus.subscribe(lambda event: None)
    during = bus.listening
    unsubscribe()

    assert (before, during, bus.listening) == (False, True, False)


def test_every_listener_hears_every_event_in_the_order_of_subscription() -> None:
    bus, heard = Bus(), list[tuple[str, Event]]()
    bus.subscribe(lambda event: heard.append(("first", event)))
    bus.subscribe(lambda event: heard.append(("second", event)))

    bus.emit(EVENT)

    assert heard == [("first", EVENT), ("second", EVENT)]


def test_unsubscribing_twice_leaves_an_equal_subscription_alone() -> None:
    bus, heard = Bus(), list[Event]()
    unsubscribe = bus.subscribe(heard.append)
    bus.subscribe(heard.append)

    unsubscribe()
    unsubscribe()
    bus.emit(EVENT)

    assert heard == [EVENT]


def test_a_raising_listener_is_logged_once_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(), list[Event]()

    def broken(event: Event) -> None:
        raise RuntimeError("disk full")

    bus.subscribe(broken)
    bus.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        bus.emit(EVENT)
        bus.emit(EVENT)

    assert heard == [EVENT, EVENT]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "disk full" in caplog.text


def test_a_time_limit_that_strikes_within_a_listener_reaches_the_caller() -> None:
    bus = Bus()
    bus.passing = (SoftTimeLimit,)

    def interrupted(event: Event) -> None:
        raise SoftTimeLimit

    bus.subscribe(interrupted)
    with pytest.raises(SoftTimeLimit):
        bus.emit(EVENT)


def test_a_forked_child_keeps_only_the_listeners_meant_for_children() -> None:
    code = run_in_fork(_child_hears_only_its_own)

    assert code == 0


def _child_hears_only_its_own() -> bool:
    from_parent, own = list[Event](), list[Event]()
    bus = Bus()
    os.register_at_fork(after_in_child=bus.after_fork)
    bus.subscribe(from_parent.append, in_children=False)
    bus.subscribe(own.append)

    def emit() -> bool:
        bus.emit(MessagesPromoted(3))
        return own == [MessagesPromoted(3)] and not from_parent

    return run_in_fork(emit) == 0


def run_in_fork(succeeds: object) -> int:
    """Call a function in a forked child; return 0 when it returned True there."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if callable(succeeds) and succeeds() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
