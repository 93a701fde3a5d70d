"""Frames, properties and header tables: what goes in comes out, and other AMQP libraries read and write the same."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from amqp.basic_message import Message as PyAmqpMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header
from pamqp.body import ContentBody

from celeriac.brokers.rabbitmq import deliveries, notes, properties, wire
from celeriac.compat import parcel
from celeriac.errors import ConfigurationError
from celeriac.message import AGAIN_HEADER, CRASHES_HEADER, Delivery

names = st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=40)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))
tables = st.dictionaries(names, values, max_size=8)


@given(tables, st.integers(0, 255), names)
def test_properties_come_back_as_they_were(headers, priority, correlation_id):
    given_ones = {"headers": headers, "priority": priority, "correlation_id": correlation_id, "delivery_mode": 2}
    assert properties.decode(properties.encode(given_ones)) == given_ones


ids = st.text("abcdef\u00e9", min_size=4, max_size=6)
alike = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["pay", "ship"]), "id": ids, "args": st.text(max_size=3), "retries": st.integers(0, 2**40),
        "eta": st.none() | st.just("soon"), "sent": st.floats(allow_nan=False), "ignore": st.booleans(),
        "timelimit": st.sampled_from([[None, None], [1, None], [None]]), "stamps": st.sampled_from([{}, {"a": None}, {"a": []}]),
    }
)  # fmt: skip


@given(st.lists(alike, min_size=2, max_size=12))
def test_tables_of_one_shape_do_not_take_each_others_values(tables):
    for headers in tables:
        for _ in range(2):  # the second time by its layout
            found = properties.decode(properties.encode({"headers": headers}))["headers"]
            assert found == headers
            assert list(found) == list(headers)
            assert {type(value) for value in found.values()} == {type(value) for value in headers.values()}
            found["timelimit"].append("changed")
            found["stamps"]["b"] = "changed"


def test_bytes_in_the_place_of_a_text_stay_bytes():
    good, bad = (properties.encode({"headers": {"id": text}}) for text in ("abcd", "efgh"))
    bad = bad.replace(b"efgh", b"\xff\xfe\xfd\xfc")
    read = [properties.decode(each)["headers"]["id"] for each in (good, bad, good)]
    assert read == ["abcd", b"\xff\xfe\xfd\xfc", "abcd"]


@given(st.dictionaries(names.filter(bool), plain, max_size=8))
def test_py_amqp_reads_what_we_write(headers):
    """Stock Celery's library."""
    raw = properties.encode({"content_type": "application/json", "headers": headers, "delivery_mode": 2, "priority": 3})
    message = PyAmqpMessage()
    frame = b"\x00\x3c\x00\x00" + bytes(8) + raw
    message._load_properties(60, frame, 12)  # noqa: SLF001 - as its connection does
    assert message.properties["application_headers"] == headers
    assert (message.properties["content_type"], message.properties["priority"]) == ("application/json", 3)


def test_we_read_what_other_libraries_write():
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    headers = {
        "text": "ü", "none": None, "yes": True, "small": 1, "large": 2**40, "float": 1.5, "list": [1, None, "x"],
        "table": {"inner": {"deep": 1}}, "moment": moment, "decimal": Decimal("1.5"), "bytes": bytearray(b"\xff"),
    }  # fmt: skip
    other = commands.Basic.Properties(headers=headers, timestamp=moment, message_id="m", priority=9).marshal()
    found = properties.decode(other)
    assert found["headers"] == {**headers, "bytes": b"\xff"}
    assert (found["message_id"], found["priority"], found["timestamp"]) == ("m", 9, int(moment.timestamp()))


@given(st.binary(max_size=60))
def test_no_bytes_are_a_surprise(raw):
    for decode in (properties.decode, parcel.decode, lambda data: parcel.decode(b"\xa1" + data)):
        with suppress(ValueError):
            decode(raw)


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**70])
def test_what_amqp_cannot_carry_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        properties.encode({"headers": {"bad": value}})


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_frames_are_cut_wherever_the_stream_is(bodies, step):
    sent = [wire.Entry(b"x", b"key", properties.encode({"priority": 1}), body) for body in bodies]
    stream = b"".join(part for entry in sent for part in wire.publish_frames(7, entry, 128))
    reader, seen = wire.FrameReader(), []
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (got := reader.next()) is not None:
            seen.append(got)
    assert {channel for _, channel, _ in seen} <= {7}
    assert b"".join(payload for kind, _, payload in seen if kind == wire.BODY) == b"".join(bodies)
    assert sum(kind == wire.HEADER for kind, _, _ in seen) == len(bodies)


def test_another_protocol_is_recognised():
    reader = wire.FrameReader()
    reader.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 30)
    with pytest.raises(ConfigurationError, match="not AMQP"):
        reader.next()


@given(st.lists(st.tuples(st.integers(1, 2**40), names, st.binary(max_size=50)), max_size=5))
def test_notes_come_back_as_they_were(leases):
    deliveries = [Delivery(*lease) for lease in leases]
    assert notes.decode_note(notes.encode(deliveries)) == deliveries


def test_a_message_is_known_again_whatever_a_quorum_queue_adds():
    def packed(headers, *, again=False):
        return wire.pack(
            b"", b"q", properties.encode({"headers": headers, "delivery_mode": 2}), b"body", redelivered=again
        )

    first = packed({"task": "t", "id": "1"})
    assert notes.quick_identity(packed({"task": "t", "id": "1"}, again=True)) == notes.quick_identity(first)
    counted = packed({"x-delivery-count": 1, "id": "1", "task": "t"}, again=True)
    assert notes.is_counted(counted)
    assert notes.full_identity(counted) == notes.full_identity(first)
    assert notes.full_identity(packed({"task": "t", "id": "2"})) != notes.full_identity(first)
    assert not wire.same_message(wire.as_copy(first), first)


# -- what is pushed ----------------------------------------------------------------------------------------------------


def as_pushed(number, body, frame_max):
    """Frames as the server sends them, by another library."""
    most = frame_max - 8
    method = frame.marshal(commands.Basic.Deliver("0.1", number, bool(number % 2), "shop", "orders"), 1)
    head = frame.marshal(header.ContentHeader(0, len(body), commands.Basic.Properties(message_id=str(number))), 1)
    parts = [frame.marshal(ContentBody(body[at : at + most]), 1) for at in range(0, len(body), most)]
    return b"".join((method, head, *parts))


@given(st.lists(st.binary(max_size=90) | st.just(b"\x00<\x00<" * 20), max_size=6), st.integers(1, 400))
def test_pushed_messages_are_cut_out_whole_however_they_arrive(bodies, chunk):
    stream = b"".join(as_pushed(number, body, 4096) for number, body in enumerate(bodies)) + wire.HEARTBEAT_FRAME
    reader, found = wire.FrameReader(), []
    for at in range(0, len(stream), chunk):
        reader.feed(stream[at : at + chunk])
        pushed, reached = deliveries.cut(*reader.rest(), lambda consumer: {b"0.1": "orders"}[consumer])
        reader.skip(reached)
        found += pushed
    assert reader.next() == (wire.HEARTBEAT, 0, b"")
    assert [got.tag for _, got in found] == list(range(len(bodies)))
    for (consumer, got), body in zip(found, bodies, strict=True):
        parcel = wire.unpack(got.raw)
        assert consumer == b"0.1"
        assert (parcel.exchange, parcel.routing_key, parcel.body) == ("shop", "orders", body)
        assert parcel.redelivered == got.redelivered == bool(got.tag % 2)
        assert properties.decode(parcel.properties) == {"message_id": str(got.tag)}


def test_a_message_of_several_frames_is_left_to_others():
    stream = as_pushed(1, b"small", 64) + as_pushed(2, b"x" * 200, 64)
    found, at = deliveries.cut(stream, 0, lambda _: "orders")
    assert [got.tag for _, got in found] == [1]
    assert stream[at:] == as_pushed(2, b"x" * 200, 64)


def test_what_is_no_amqp_is_not_taken_for_a_message():
    broken = as_pushed(1, b"body", 4096)[:-1] + b"?"
    with pytest.raises(ConfigurationError, match="not AMQP"):
        deliveries.cut(broken, 0, lambda _: "orders")


def test_a_message_that_is_sent_again_says_that_it_is_redelivered():
    raw = parcel.encode(b"[]", "application/json", "utf-8", {"id": "1"}, {"priority": 0}, "", "celery")

    def redelivered(message):
        return parcel.decode(message)["properties"]["delivery_info"]["redelivered"]

    again = [parcel.amend(raw, {header: 1}) for header in (AGAIN_HEADER, CRASHES_HEADER)]
    assert (redelivered(raw), [redelivered(each) for each in again]) == (False, [True, True])
