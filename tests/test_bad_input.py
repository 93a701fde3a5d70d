"""What is not a task message, or not one that can run: kept with its reason and its raw bytes, and the worker goes on."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from datetime import datetime, timezone

import pytest
from celery.exceptions import NotRegistered
from celery.exceptions import TimeoutError as CeleryTimeout
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from celeriac.message import Message
from tests.helpers import wait_until
from tests.workers import Stage

NOTE = "tests.apps.survival.note"


@pytest.fixture(scope="module", params=["redis", "sqlite"])
def stage(request, tmp_path_factory):
    """One worker for all of it: none of it may hurt it."""
    directory = tmp_path_factory.mktemp("bad")
    shared = request.getfixturevalue("shared_redis") if request.param == "redis" else None
    conf = {"task_time_limit": 60}
    with Stage(directory, shared and shared.database_url(950), conf=conf) as stage, stage.worker() as worker:
        slots = worker.slots()
        yield stage
        assert worker.slots() == slots, "a message has cost a slot its life"


def body_of(*args, **kwargs):
    return [list(args), kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def envelope(body=None, *, headers=None, properties=None, raw_body=None, **fields):
    """A message as Celery sends it, but for what is given."""
    payload = json.dumps(body_of("k") if body is None else body).encode() if raw_body is None else raw_body
    task_headers = {"lang": "py", "task": NOTE, "id": str(uuid.uuid4()), "retries": 0, "eta": None, "expires": None}
    return {
        "body": base64.b64encode(payload).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**task_headers, **(headers or {})},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            "priority": 0,
            **(properties or {}),
        },
        **fields,
    }


def without(message, *names):
    return {name: value for name, value in message.items() if name not in names}


def publish(stage, raw):
    stage.broker.publish([Message("celery", raw)])


def buried(stage, raw):
    """The dead letter of these bytes."""

    def find():
        return next((letter for letter in stage.dead() if letter.raw == raw), None)

    return wait_until(find, 15, lambda: f"not among the dead letters: {raw[:200]!r}")


def assert_alive(stage):
    assert stage.send("note", "after").get(timeout=15) == "after"


def raws():
    """Bytes of all kinds that are no task message, with the reason to give."""
    deep = "[" * 100_000 + "]" * 100_000
    surrogate = json.dumps(envelope()).replace(NOTE, "\\ud800")
    huge_number = json.dumps(envelope()).replace('"retries": 0', '"retries": ' + "9" * 5000)
    return {
        "nothing": (b"", "invalid"),
        "no JSON": (b"\x80\x04\x95not json", "invalid"),
        "no UTF-8": (b'{"body": "\xff\xfe"}', "invalid"),
        "half a message": (json.dumps(envelope()).encode()[:200], "invalid"),
        "a number": (b"42", "invalid"),
        "null": (b"null", "invalid"),
        "a list": (b"[1, 2, 3]", "invalid"),
        "an empty mapping": (b"{}", "invalid"),
        "deep nesting": (deep.encode(), "invalid"),
        "deep nesting inside": (
            json.dumps(envelope()).replace('"retries": 0', f'"retries": {deep}').encode(),
            "invalid",
        ),
        "a name without an encoding": (surrogate.encode(), "unknown_task"),
        "an endless number": (huge_number.encode(), "invalid"),
    }


def messages():
    """Envelopes of all kinds that cannot run, with the reason to give."""
    deep_body = ("[" * 50_000 + "]" * 50_000).encode()
    pickled = base64.b64encode(pickle.dumps(body_of("k"))).decode()
    return {
        "no headers": (without(envelope(raw_body=b"[[], {}, {}]"), "headers"), "invalid"),
        "headers that are null": (envelope() | {"headers": None}, "invalid"),
        "headers that are a list": (envelope() | {"headers": ["task", "id"]}, "invalid"),
        "headers that are a text": (envelope() | {"headers": "task"}, "invalid"),
        "headers that are a number": (envelope() | {"headers": 7}, "invalid"),
        "no properties": (without(envelope(), "properties"), "invalid"),
        "properties that are a list": (envelope() | {"properties": []}, "invalid"),
        "no body": (without(envelope(), "body"), "invalid"),
        "a body that is a number": (envelope() | {"body": 5}, "invalid"),
        "a body that is not base64": (envelope() | {"body": "§§§"}, "invalid"),
        "a body that is not JSON": (envelope(raw_body=b"<xml/>"), "invalid"),
        "a body that is a mapping": (envelope({"args": []}), "invalid"),
        "a body of two parts": (envelope([[], {}]), "invalid"),
        "a body of four parts": (envelope([[], {}, {}, {}]), "invalid"),
        "arguments that are a text": (envelope(["abc", {}, {}]), "invalid"),
        "keyword arguments that are a list": (envelope([[], [], {}]), "invalid"),
        "options that are a number": (envelope([["k"], {}, 5]), "invalid"),
        "options that are a text": (envelope([["k"], {}, "abc"]), "invalid"),
        "too few arguments": (envelope(body_of()), "invalid"),
        "too many arguments": (envelope(body_of("a", "b", "c")), "invalid"),
        "an unknown keyword argument": (envelope(body_of("k", colour="blue")), "invalid"),
        "deeply nested arguments": (envelope(raw_body=deep_body), "invalid"),
        "an unknown task": (envelope(headers={"task": "no.such.task"}), "unknown_task"),
        "a task that is null": (envelope(headers={"task": None}), "unknown_task"),
        "a task that is a list": (envelope(headers={"task": [1]}), "invalid"),
        "no id": (envelope() | {"headers": {"task": NOTE}}, "invalid"),
        "an id that is a number": (envelope(headers={"id": 123}), "invalid"),
        "an id that is a list": (envelope(headers={"id": []}), "invalid"),
        "an ETA that is no date": (envelope(headers={"eta": "next tuesday"}), "invalid"),
        "an ETA that is a mapping": (envelope(headers={"eta": {}}), "invalid"),
        "an ETA that never was": (envelope(headers={"eta": "2026-02-31T00:00:00"}), "invalid"),
        "an expiry that is no date": (envelope(headers={"expires": "soon"}), "invalid"),
        "an expiry that is a list": (envelope(headers={"expires": [1]}), "invalid"),
        "time limits that are texts": (envelope(headers={"timelimit": ["a", "b"]}), "invalid"),
        "time limits that are a number": (envelope(headers={"timelimit": 5}), "invalid"),
        "delivery info that is a text": (envelope(properties={"delivery_info": "abc"}), "invalid"),
        "an unknown content type": (envelope() | {"content-type": "application/x-unknown"}, "invalid"),
        "a content type that is a list": (envelope() | {"content-type": []}, "invalid"),
        "an unknown compression": (envelope(headers={"compression": "application/x-klingon"}), "invalid"),
        "compression that is none": (envelope(headers={"compression": "application/x-gzip"}), "invalid"),
        "pickle": (
            envelope()
            | {"body": pickled, "content-type": "application/x-python-serialize", "content-encoding": "binary"},
            "invalid",
        ),
        "pickle disguised as JSON": (envelope() | {"body": pickled}, "invalid"),
    }


@pytest.mark.parametrize("name", raws())
def test_bytes_that_are_no_message_are_kept_with_a_reason(stage, name):
    raw, reason = raws()[name]
    publish(stage, raw)
    letter = buried(stage, raw)
    assert letter.reason == reason
    assert letter.error
    assert_alive(stage)


@pytest.mark.parametrize("name", messages())
def test_messages_that_cannot_run_are_kept_with_a_reason(stage, name):
    message, reason = messages()[name]
    raw = json.dumps(message).encode()
    publish(stage, raw)
    letter = buried(stage, raw)
    assert letter.reason == reason, letter.error
    assert letter.error
    assert_alive(stage)


def test_whoever_waits_for_a_task_that_nobody_knows_is_told(stage):
    result = stage.client.send_task("no.such.task", (1,))
    with pytest.raises(Exception, match=r"Received unregistered task of type 'no\.such\.task'") as raised:
        result.get(timeout=10)
    assert isinstance(raised.value, NotRegistered) or "UnknownTask" in type(raised.value).__name__


def test_pickle_is_refused_with_a_word_on_how_to_allow_it(stage):
    raw = json.dumps(messages()["pickle"][0]).encode()
    publish(stage, raw)
    assert "accept_content" in buried(stage, raw).error


def test_a_message_of_ten_megabytes_runs(stage):
    big = "x" * 10_000_000
    assert stage.client.send_task("tests.apps.survival.length", (big,)).get(timeout=30) == len(big)


def test_ten_megabytes_of_nonsense_are_kept_whole(stage):
    raw = b"\xff" * 10_000_000
    publish(stage, raw)
    assert buried(stage, raw).reason == "invalid"
    stage.broker.discard([letter.id for letter in stage.dead() if len(letter.raw) > 1_000_000])
    assert_alive(stage)


def test_a_result_that_cannot_be_encoded_is_a_failure_and_nothing_worse(stage):
    for kind in ("object", "nan-key", "deep", "surrogate"):
        result = stage.client.send_task("tests.apps.survival.unspeakable", (kind,))
        try:
            result.get(timeout=15)
        except Exception as error:
            assert "timed out" not in str(error)  # noqa: PT017
    assert_alive(stage)


def test_an_error_that_cannot_be_encoded_is_a_failure_and_nothing_worse(stage):
    for kind in ("surrogate", "unprintable", "unpicklable", "huge"):
        result = stage.client.send_task("tests.apps.survival.unspeakable_error", (kind,))
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is
            result.get(timeout=15)
        assert not isinstance(raised.value, CeleryTimeout)
    assert_alive(stage)


# -- anything ----------------------------------------------------------------------------------------------------------

moment = datetime(2020, 1, 1, tzinfo=timezone.utc).isoformat()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(moment),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADERS = [
    *("task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id", "parent_id"),
    *("argsrepr", "origin", "ignore_result", "celeriac-crashes", "celeriac-sent", "compression", "shadow", "stamps"),
]
PROPERTIES = ["delivery_info", "priority", "body_encoding", "reply_to", "correlation_id", "delivery_tag", "expiration"]


@st.composite
def damaged(draw):
    """A task message with some of its parts replaced by anything."""
    message = envelope()
    message["headers"] |= draw(st.dictionaries(st.sampled_from(HEADERS), anything, max_size=3))
    message["properties"] |= draw(st.dictionaries(st.sampled_from(PROPERTIES), anything, max_size=2))
    embedded = draw(st.dictionaries(st.sampled_from(["callbacks", "errbacks", "chain", "chord"]), anything, max_size=2))
    args, kwargs, options = body_of("fuzz")
    body = draw(st.sampled_from([[args, kwargs, options | embedded], anything]))
    payload = json.dumps(body if isinstance(body, list) else draw(body)).encode()
    message["body"] = base64.b64encode(payload).decode()
    return json.dumps(message | draw(st.dictionaries(st.sampled_from(list(message)), anything, max_size=1))).encode()


@settings(
    max_examples=15, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(batch=st.lists(damaged(), min_size=20, max_size=40))
def test_no_message_whatever_it_is_stops_the_worker(stage, batch):
    for raw in batch:
        publish(stage, raw)
    assert_alive(stage)
    stage.wait_until_drained()
