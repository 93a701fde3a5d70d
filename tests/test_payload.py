"""Typed payloads: refused where they are sent, decoded where they arrive, dead-lettered when they do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal
from functools import partial
from uuid import UUID

import celery
import pytest
from kombu.exceptions import EncodeError

from celeriac import Celery, InvalidPayload, upgrade
from celeriac.compat import connect
from celeriac.compat.envelope import decode, decode_body
from celeriac.errors import ConfigurationError
from celeriac.message import Message
from tests.apps import typed_models as typed
from tests.helpers import wait_until
from tests.stages import STORES, lasting_stage

ID = UUID("12345678-1234-5678-1234-567812345678")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def order(key="k", **fields):
    given = {"id": ID, "key": key, "at": AT, "price": Decimal("9.90"), "lines": [{"sku": "a", "quantity": 1}]}
    return typed.Order(**{**given, **fields})


def plain_order(key="k", **fields):
    return {**order(key).model_dump(mode="json"), **fields}


def reasons(error):
    return {(reason.field, reason.kind) for reason in error.value.reasons}


# -- where they are sent -----------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path):
    app = Celery("typed", broker=f"sqlite:///{tmp_path}/q.sqlite3", backend="cache+memory://", set_as_current=False)
    yield app
    connect.producer(app).close()


@pytest.fixture
def queued(app):
    """What has been sent: arguments as they travel, and headers."""

    def look():
        broker = connect.producer(app)
        broker.register("looker", ["celery"], 60)
        deliveries = broker.lease("looker", ["celery"], 100)
        envelopes = [decode(delivery.raw) for delivery in deliveries]
        return [(*decode_body(envelope, {"application/json"})[:2], envelope["headers"]) for envelope in envelopes]

    return look


def test_a_payload_that_does_not_fit_is_refused_with_reasons_by_field_and_nothing_is_sent(app, queued):
    @app.task(shared=False)
    def ship(order: typed.Order, where: typed.Point): ...

    with pytest.raises(InvalidPayload) as error:
        ship.delay(plain_order(lines=[{"sku": "a", "quantity": 0}], price="much"), {"x": 1})
    assert reasons(error) == {
        ("order.price", "decimal_parsing"),
        ("order.lines.0.quantity", "greater_than"),
        ("where.y", "missing"),
    }
    assert isinstance(error.value, ValueError)
    assert "order.lines.0.quantity: Input should be greater than 0" in str(error.value)
    for call in (ship.delay, ship.apply_async, ship.s().delay, partial(app.send_task, ship.name)):
        with pytest.raises(InvalidPayload) as error:
            call()
        assert reasons(error) == {("order", "missing"), ("where", "missing")}
    with pytest.raises(InvalidPayload) as error:
        ship.delay(order(), typed.Point(1, 2), 3, colour="red")
    assert reasons(error) == {("", "arguments"), ("colour", "unexpected")}
    with pytest.raises(InvalidPayload) as error:
        ship.delay(order(), order=order(), where=typed.Point(1, 2))
    assert reasons(error) == {("order", "duplicate")}
    assert queued() == []


def test_an_instance_that_was_made_invalid_afterwards_is_refused_too(app, queued):
    @app.task(shared=False)
    def ship(order: typed.Order): ...

    broken = order()
    broken.lines[0].quantity = -1
    with pytest.raises(InvalidPayload) as error:
        ship.delay(broken)
    assert reasons(error) == {("order.lines.0.quantity", "greater_than")}
    assert queued() == []


def test_objects_travel_as_plain_json(app, queued):
    @app.task(shared=False)
    def ship(order: typed.Order, where: typed.Point, *rest: UUID, express: bool = False, **more: Decimal): ...

    ship.delay(order(speed=typed.Speed.FAST), where=typed.Point(1, 2))
    ship.delay(order(), typed.Point(1, 2), ID, express=True, tip=Decimal("1.5"))
    first, second = queued()
    expected = {**plain_order(), "speed": "fast"}
    assert first[:2] == ([expected], {"where": {"x": 1.0, "y": 2.0}})
    assert second[:2] == ([plain_order(), {"x": 1.0, "y": 2.0}, str(ID)], {"express": True, "tip": "1.5"})


def test_signatures_travel_inside_other_messages_and_are_not_checked_before_they_are_whole(app, queued):
    @app.task(shared=False)
    def ship(order: typed.Order, where: typed.Point): ...

    (ship.s(order(), typed.Point(1, 2)) | ship.s(where=typed.Point(3, 4)) | ship.si(order(), typed.Point(5, 6)))()
    (ship.s(order()) | ship.si(where=typed.Point(5, 6))).clone()
    (sent,) = queued()
    assert sent[0] == [plain_order(), {"x": 1.0, "y": 2.0}]


def test_parameters_without_a_type_are_left_alone(app, queued):
    @app.task(payload=True, shared=False)
    def note(key: int, when, anything: object = None): ...

    note.delay("7", AT)
    ((args, _, _),) = queued()
    assert args[0] == 7
    assert args[1] == AT, "kombu has a form of its own for dates"


def test_who_is_typed(app):
    @app.task(shared=False)
    def annotated(x: int): ...

    @app.task(payload=False, shared=False)
    def refused(order: typed.Order): ...

    @app.task(shared=False)
    def nested(orders: list[typed.Order] | None = None): ...

    @app.task(pydantic=True, shared=False)
    def celerys(order: typed.Order): ...

    @app.task(serializer="pickle", shared=False)
    def pickled(order: typed.Order): ...

    assert [hasattr(task, "celeriac_payload") for task in (annotated, refused, nested, celerys, pickled)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    with pytest.raises(EncodeError):
        refused.delay(order())


def test_plain_annotations_are_checked_when_the_app_says_so(app, queued):
    app.conf.celeriac_validate_payloads = True

    @app.task(shared=False)
    def annotated(x: int): ...

    @app.task(shared=False)
    def bare(x): ...

    annotated.delay("3")
    bare.delay("3")
    with pytest.raises(InvalidPayload):
        annotated.delay("three")
    assert [sent[0] for sent in queued()] == [[3], ["3"]]


def test_an_app_that_was_written_for_celery_is_left_alone_until_a_task_asks(tmp_path, queued):
    app = celery.Celery("old", broker=f"sqlite:///{tmp_path}/old.sqlite3", set_as_current=False)
    upgrade(app)

    @app.task(shared=False)
    def lies(order: typed.Order): ...

    @app.task(payload=True, shared=False)
    def asks(order: typed.Order): ...

    lies.delay({"id": 1})
    with pytest.raises(InvalidPayload):
        asks.delay({"id": 1})
    connect.producer(app).close()


def test_a_call_and_an_eager_run_are_checked_as_well(app):
    @app.task(shared=False)
    def ship(order: typed.Order) -> typed.Order:
        return order

    assert ship(plain_order()) == order()
    assert ship.apply((order(),)).get() == plain_order()
    with pytest.raises(InvalidPayload):
        ship.apply(({},)).get()
    app.conf.task_always_eager = True
    assert ship.delay(order()).get() == plain_order()


def test_a_task_that_is_a_class_is_typed_as_well(app, queued):
    class Ship(app.Task):
        name = "ship"

        def run(self, order: typed.Order): ...

    app.register_task(Ship())
    with pytest.raises(InvalidPayload):
        app.tasks["ship"].delay({})
    assert queued() == []


def test_the_schema_tells_other_programs_what_to_send(app):
    @app.task(shared=False)
    def ship(order: typed.Order, where: typed.Point, express: bool = False): ...

    @app.task(shared=False)
    def untyped(a, *, b: int = 1, **more): ...

    schema = ship.schema()
    json.dumps(schema)
    assert (schema["title"], schema["type"], schema["required"]) == (ship.name, "object", ["order", "where"])
    assert schema["properties"]["express"] == {"title": "Express", "type": "boolean"}
    assert schema["$defs"]["Line"]["properties"]["quantity"]["exclusiveMinimum"] == 0
    assert not schema["additionalProperties"]
    assert untyped.schema()["additionalProperties"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"payload": "yes"}, "payload is 'yes'"),
        ({"payload": True, "pydantic": True}, "two ways of one thing"),
        ({"payload": True, "payload_version": 0}, "whole number from 1"),
        ({"payload": True, "payload_version": 2, "payload_upgrade": 7}, "cannot be"),
        ({"payload": True, "payload_upgrade": print}, "payload_version=2"),
        ({"payload": False, "payload_version": 2}, "payload=True"),
        ({"paylod": True}, "Did you mean 'payload'"),
    ],
)
def test_options_that_cannot_work_are_refused_when_the_task_is_declared(app, options, told):
    def body(x): ...

    with pytest.raises(ConfigurationError, match=told):
        app.task(**options, shared=False)(body).name  # noqa: B018 - tasks are declared when they are first looked at


def test_an_annotation_that_cannot_be_resolved_is_named(app):
    def body(x: "Nowhere"): ...  # noqa: F821, UP037 - that is the point

    with pytest.raises(ConfigurationError, match="Nowhere"):
        app.task(payload=True, shared=False)(body).name  # noqa: B018
    assert app.task(name="other", shared=False)(body).name == "other"


def test_without_pydantic_a_typed_task_says_what_to_install_and_others_work(tmp_path):
    program = """
import sys
sys.modules["pydantic"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pydantic" else find(name, *rest)
from dataclasses import dataclass
from celeriac import Celery
from celeriac.errors import MissingExtra
app = Celery("a", broker=f"sqlite:///{sys.argv[1]}/a.sqlite3")
@dataclass
class Point:
    x: int
@app.task
def plain(point: Point): ...
plain.delay({"x": 1})
try:
    @app.task(payload=True, shared=False)
    def typed(x): ...
    typed.name
except MissingExtra as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install 'celeriac[pydantic]'" in told.stdout


# -- where they arrive -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STORES)
def stage(request, tmp_path_factory):
    for stage in lasting_stage(request, tmp_path_factory.mktemp("typed"), "tests.apps.typed", 951):
        with stage.worker():
            yield stage


def send_plainly(stage, task, args, **options):
    """As a sender does that knows nothing of types."""
    return stage.send(task, *args, **options)


def raw_message(stage, task, args, headers):
    """A message of an older or a newer sender."""
    result = stage.client.AsyncResult(f"{task}-{len(stage.dead())}-{headers}")
    body = [args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    envelope = {
        "body": json.dumps(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": f"tests.apps.typed.{task}", "id": result.id, "retries": 0, **headers},
        "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0},
    }
    stage.broker.publish([Message("celery", json.dumps(envelope).encode())])
    return result


def test_the_body_gets_objects_and_the_result_is_plain(stage):
    result = send_plainly(stage, "ship", [plain_order("body"), {"x": 1, "y": 2}], kwargs={"express": "yes"})
    assert result.get(timeout=15) == {**plain_order("body"), "note": "shipped"}
    assert stage.effects.of("shipped", "body-Decimal-Point-True")


def test_a_bound_task_retries_with_what_it_was_sent(stage):
    result = send_plainly(stage, "ship_bound", [plain_order("bound")])
    assert result.get(timeout=15) == "bound UUID 2 bound"


def test_a_coroutine_gets_objects(stage):
    with stage.worker(name="two", pool="asyncio", options=["-Q", "async"]):
        result = send_plainly(stage, "ship_async", [plain_order("async")], queue="async")
        assert result.get(timeout=15) == plain_order("async")


def test_a_strict_model_and_kombus_own_dates_are_understood(stage):
    assert send_plainly(stage, "strict", [{"at": AT.isoformat(), "key": "k"}]).get(timeout=15) == AT.isoformat()
    assert send_plainly(stage, "strict", [{"at": AT, "key": "k"}]).get(timeout=15) == AT.isoformat()


def test_annotations_alone_change_nothing(stage):
    assert send_plainly(stage, "plain", ["k", "3"]).get(timeout=15) == ["str", "3"]


def test_a_message_that_does_not_fit_is_dead_lettered_with_its_reasons_and_never_retried(stage):
    result = send_plainly(stage, "ship_bound", [plain_order("bad", price="much", lines=[{"sku": 1}])])
    with pytest.raises(InvalidPayload) as error:
        result.get(timeout=15)
    fields = {
        ("order.price", "decimal_parsing"),
        ("order.lines.0.sku", "string_type"),
        ("order.lines.0.quantity", "missing"),
    }
    assert reasons(error) == fields
    letter = wait_until(lambda: next((each for each in stage.dead() if each.task_id == result.id), None))
    assert (letter.reason, letter.attempts) == ("invalid", 0)
    assert "order.lines.0.quantity: Field required [missing]" in letter.traceback
    assert "order.lines.0.quantity: Field required" in letter.error
    assert not stage.effects.of("attempt", "bad")


def test_a_body_can_catch_what_it_sends_badly(stage):
    fields = send_plainly(stage, "sends_badly", ["k"]).get(timeout=15)
    assert fields.split(",") == [
        "order.id",
        "order.key",
        "order.at",
        "order.price",
        "order.lines",
        "where.x",
        "where.y",
    ]


def test_a_parents_result_is_its_childs_payload(stage):
    parent = stage.signature("ship", plain_order("chain"), {"x": 1, "y": 2})
    assert (parent | stage.signature("price_of", kwargs={"factor": 3})).apply_async().get(timeout=15) == "29.70"


def test_a_child_whose_parents_result_does_not_fit_is_dead_lettered_and_the_parent_succeeds(stage):
    tail = (stage.signature("count", "k", 1) | stage.signature("price_of", kwargs={"factor": 3})).apply_async()
    with pytest.raises(InvalidPayload):
        tail.get(timeout=15)
    assert tail.parent.get(timeout=15) == 2
    letter = wait_until(lambda: next((each for each in stage.dead() if each.task_id == tail.id), None))
    assert letter.reason == "invalid"


def test_messages_of_the_last_version_are_upgraded(stage):
    old = raw_message(stage, "send", ["a@b.c", "Hello"], {})
    new = raw_message(stage, "send", ["Hello", {"email": "a@b.c", "name": "Ann"}], {"celeriac-payload": 2})
    assert old.get(timeout=15) == "Hello you at a@b.c"
    assert new.get(timeout=15) == "Hello Ann at a@b.c"


def test_an_old_message_is_retried_as_what_it_is(stage):
    assert raw_message(stage, "send_again", ["a@b.c", "Hello"], {}).get(timeout=15) == "Hello a@b.c 1"


def test_a_message_of_a_version_to_come_waits_among_the_dead_letters(stage):
    result = raw_message(stage, "send", ["Hello", {"email": "a@b.c"}], {"celeriac-payload": 3})
    with pytest.raises(InvalidPayload, match="version 3, and this worker knows 2: upgrade it, then replay"):
        result.get(timeout=15)


def test_senders_state_the_version(app, queued):
    @app.task(payload_version=2, payload_upgrade=typed.upgrade_send, shared=False)
    def send(text: str, to: typed.Address): ...

    send.delay("Hello", typed.Address(email="a@b.c"))
    send.s("Hello", typed.Address(email="a@b.c")).delay()
    app.send_task(send.name, ("Hello", {"email": "a@b.c"}))
    assert [headers["celeriac-payload"] for _, _, headers in queued()] == [2, 2, 2]
