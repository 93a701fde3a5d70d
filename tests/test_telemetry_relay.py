"""The way from a slot's process to the supervisor: sums, bounds, and a supervisor that does not read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from celeriac.outcome import State
from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import (
    EVENTS,
    BatchSettled,
    Event,
    EventsDropped,
    LeaseFenced,
    SlotExited,
    TaskDeadLettered,
    TaskFinished,
    TaskReceived,
    TasksMeasured,
    TaskStarted,
    WorkerReady,
)
from celeriac.telemetry.relay import MAX_PACKET, Relay, decode, encode, receive
from celeriac.telemetry.tally import COUNTERS, OTHER, RUN_BUCKETS, UNREGISTERED, Tally

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Sockets]:
    """A packet connection like the one between a slot and its supervisor: the slot's end, the supervisor's end."""
    slot, supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    slot.setblocking(False)
    supervisor.setblocking(False)
    with slot, supervisor:
        yield slot, supervisor


def read_all(end: socket.socket) -> list[Event]:
    events: list[Event] = []
    try:
        while packet := end.recv(MAX_PACKET + 1):
            events += decode(packet)
    except BlockingIOError:
        pass
    return events


def finished(state: State = State.SUCCEEDED, exception: str = "", ran: float = 0.002, task: str = "t") -> TaskFinished:
    return TaskFinished(task, "q", "id", state.value, 1000.0, ran, 0.5, 0, 0, exception)


def counts(event: Event) -> dict[str, int]:
    assert isinstance(event, TasksMeasured)
    return {name: count for name, count in zip(COUNTERS, event.counts, strict=True) if count}


def test_a_thousand_task_events_travel_as_one_sum_in_one_packet(ends: Sockets) -> None:
    slot, supervisor = ends
    relay = Relay(slot.send)
    for _ in range(1000):
        relay(TaskReceived("t", "q", "id"))
        relay(TaskStarted("t", "q", "id", 1000.0, 0.5))
        relay(finished())

    relay.flush()

    (event,) = decode(supervisor.recv(MAX_PACKET))
    assert counts(event) == {"received": 1000, "started": 1000, "succeeded": 1000}
    with pytest.raises(BlockingIOError):
        supervisor.recv(MAX_PACKET)


def test_a_flush_without_news_sends_nothing(ends: Sockets) -> None:
    slot, supervisor = ends

    Relay(slot.send).flush()

    assert read_all(supervisor) == []


def test_every_task_is_sent_in_order_when_somebody_wants_each(ends: Sockets) -> None:
    slot, supervisor = ends
    relay = Relay(slot.send, every_task=True)
    events: list[Event] = [TaskReceived("t", "q", "id"), TaskStarted("t", "q", "id", 1.0, None), finished()]
    for event in events:
        relay(event)

    relay.flush()

    assert [(type(event), event) for event in read_all(supervisor)] == [(type(event), event) for event in events]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_survives_the_wire(kind: type[Event]) -> None:
    event = kind._make(range(len(kind._fields)))

    (received,) = decode(encode([event]))

    assert type(received) is kind
    assert received == event


def test_an_enum_in_an_event_arrives_as_its_plain_value() -> None:
    event = finished()._replace(state=State.FAILED)

    (received,) = decode(encode([event, WorkerReady("w", 1, 2, ("a", "b"), 0.1)]))[:1]

    assert isinstance(received, TaskFinished)
    assert type(received.state) is str
    assert received.state == "failed"


def test_a_supervisor_that_does_not_read_costs_no_sum_and_never_blocks(ends: Sockets) -> None:
    slot, supervisor = ends
    relay = Relay(slot.send)
    total = 0
    while not _is_full(slot):
        relay(finished())
        total += 1
        relay.flush()
    for _ in range(500):
        relay(finished())
        relay.flush()
    heard = read_all(supervisor)

    relay.flush()

    heard += read_all(supervisor)
    assert sum(counts(event)["succeeded"] for event in heard if isinstance(event, TasksMeasured)) == total + 500


def _is_full(end: socket.socket) -> bool:
    """Fill the connection with packets that decode to nothing."""
    try:
        end.send(encode([]) + b" " * 2000)
    except BlockingIOError:
        return True
    return False


def test_single_events_beyond_the_bound_are_dropped_and_counted(ends: Sockets) -> None:
    slot, supervisor = ends
    relay = Relay(slot.send, limit=10)
    for number in range(25):
        relay(LeaseFenced(str(number), 1))

    relay.flush()

    heard = read_all(supervisor)
    assert [event.owner for event in heard if isinstance(event, LeaseFenced)] == [str(number) for number in range(10)]
    assert [event for event in heard if isinstance(event, EventsDropped)] == [EventsDropped(15)]


def test_what_could_not_be_sent_goes_out_first_the_next_time() -> None:
    sent: list[bytes] = []
    refusals = iter([True, False, False])

    def send(packet: bytes) -> None:
        if next(refusals):
            raise BlockingIOError
        sent.append(packet)

    relay = Relay(send)
    relay(LeaseFenced("early", 1))
    relay.flush()
    relay(LeaseFenced("late", 1))
    relay.flush()

    assert [event for packet in sent for event in decode(packet)] == [LeaseFenced("early", 1), LeaseFenced("late", 1)]


def test_much_news_is_split_into_packets_that_fit(ends: Sockets) -> None:
    packets: list[bytes] = []
    relay = Relay(packets.append)
    for number in range(900):
        relay(finished(task=f"task-{number}"))
    relay(SlotExited("s", 1, "x" * MAX_PACKET))

    relay.flush()
    relay.flush()

    heard = [event for packet in packets for event in decode(packet)]
    assert max(map(len, packets)) <= MAX_PACKET
    assert sum(isinstance(event, TasksMeasured) for event in heard) == 900
    assert EventsDropped(1) in heard


def test_a_supervisor_that_is_gone_is_no_error(ends: Sockets) -> None:
    slot, supervisor = ends
    supervisor.close()
    relay = Relay(slot.send)
    relay(finished())

    relay.flush()


def test_threads_that_emit_while_another_flushes_lose_and_double_nothing() -> None:
    packets: list[bytes] = []
    relay = Relay(packets.append)

    def work() -> None:
        for _ in range(5000):
            relay(finished())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        relay.flush()
    relay.flush()

    assert sum(counts(event)["succeeded"] for packet in packets for event in decode(packet)) == 20_000


def test_an_event_with_an_impossible_value_is_logged_and_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    packets: list[bytes] = []
    relay = Relay(packets.append)
    for state in ("succeeded", "no such state", "succeeded"):
        relay(finished()._replace(state=state))

    relay.flush()

    assert [counts(event) for packet in packets for event in decode(packet)] == [{"succeeded": 2}]
    assert "no such state" in caplog.text


@pytest.mark.parametrize("packet", [b"", b"x", encode([finished()])[:-3], b"i\x05\x00\x00\x00"])
def test_a_packet_that_is_none_raises_value_error(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"telemetry packet|marshal"):
        decode(packet)


def test_a_forked_slot_is_heard_on_the_supervisors_bus(ends: Sockets) -> None:
    slot, supervisor = ends
    supervisor.setblocking(True)
    supervisor.settimeout(10)
    pid = os.fork()
    if pid == 0:
        _run_slot(slot.send)
    slot.close()
    bus, heard = Bus(), list[Event]()
    bus.subscribe(heard.append)

    while packet := supervisor.recv(MAX_PACKET):
        receive(packet, bus)

    os.waitpid(pid, 0)
    assert [counts(event) for event in heard if isinstance(event, TasksMeasured)] == [{"succeeded": 3}]
    assert BatchSettled(2, 7, 5, 0.5) in heard


def _run_slot(send: Callable[[bytes], object]) -> None:
    """What a slot does, in a child process that it does not return from."""
    try:
        bus, relay = Bus(), Relay(send)
        bus.subscribe(relay, in_children=False)
        for _ in range(3):
            bus.emit(finished())
        bus.emit(BatchSettled(1, 3, 5, 0.25))
        bus.emit(BatchSettled(1, 4, 0, 0.25))
        relay.flush()
    finally:
        os._exit(0)


# -- the sums ----------------------------------------------------------------------------------------------------------


def test_draining_and_adding_again_restores_the_sums() -> None:
    tally, other = Tally(), Tally()
    tally.add(finished(State.FAILED, "ValueError"))
    tally.add(TaskStarted("t", "q", "id", 1000.0, -3.0))
    tally.add(TaskDeadLettered("t", "q", "id", "failed"))
    drained = tally.drain()

    for event in drained:
        other.add(event)

    assert tally.drain() == []
    assert other.drain() == drained


@pytest.mark.parametrize(
    ("state", "exception", "counter"),
    [
        (State.SUCCEEDED, "", "succeeded"),
        (State.RETRYING, "ConnectionError", "retried"),
        (State.REVOKED, "", "revoked"),
        (State.EXPIRED, "", "revoked"),
        (State.IGNORED, "Ignore", "ignored"),
        (State.SNOOZED, "", "snoozed"),
        (State.INTERRUPTED, "", "interrupted"),
        (State.FAILED, "Reject", "rejected"),
        (State.INTERRUPTED, "Reject", "rejected"),
    ],
)
def test_each_state_has_its_counter(state: State, exception: str, counter: str) -> None:
    tally = Tally()

    tally.add(finished(state, exception))

    assert [counts(event) for event in tally.drain()] == [{counter: 1}]


def test_a_value_on_a_bound_counts_below_it_as_in_prometheus() -> None:
    tally = Tally()
    tally.add(finished(ran=RUN_BUCKETS[3]))
    tally.add(finished(ran=RUN_BUCKETS[-1] * 2))

    (event,) = tally.drain()

    assert isinstance(event, TasksMeasured)
    assert [index for index, count in enumerate(event.ran_buckets) if count] == [3, len(RUN_BUCKETS)]


def test_invented_task_names_share_one_row() -> None:
    tally = Tally(registered={"known"})
    for name in ("known", "invented-1", "invented-2", ""):
        tally.add(finished(task=name))

    assert {(task, row.ran.counts[2] + row.ran.counts[1]) for task, _, row in tally.rows()} == {
        ("known", 1),
        (UNREGISTERED, 3),
    }


def test_names_after_the_cap_share_one_row_and_early_ones_keep_theirs() -> None:
    tally = Tally(max_tasks=2, max_exceptions=1)
    for name in ("a", "b", "c", "d", "a", "x" * 500):
        tally.add(finished(State.FAILED, f"Error{name}", task=name))

    assert {task for task, _, _ in tally.rows()} == {"a", "b", OTHER}
    assert {name for _, _, row in tally.rows() for name in row.failed} == {"Errora", OTHER}
