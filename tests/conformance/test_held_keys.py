"""Keys that belong to a holder: claimed, sent with, and settled with; on every store."""

from __future__ import annotations

import threading

import pytest

from celeriac.broker import Broker
from celeriac.errors import StoreUnavailable
from celeriac.keyvalue import Claim, KeyValueStore, Namespace, data_of, holder_of
from celeriac.keyvalues.sqlite import SQLiteKeyValues
from celeriac.message import Message
from celeriac.outcome import KeyWrite, Outcome, State
from tests.conformance.kits import QUEUE, Kit, messages, owner_of, raws
from tests.helpers import wait_until

SPACE = Namespace("orders")


@pytest.fixture
def store(kit: Kit) -> KeyValueStore:
    return kit.key_values()


@pytest.fixture
def apart(kit: Kit, tmp_path) -> KeyValueStore:
    """Keys in another store than the broker's."""
    return SQLiteKeyValues(tmp_path / "elsewhere.sqlite3")


def claim(holder: str, *, name: str = "a", data: bytes = b"", ttl: float = 60.0, replace: bool = False) -> Claim:
    return Claim(SPACE.name, name, holder, data, ttl, replace)


def write(holder: str, value: bytes | None = None, *, name: str = "a", ttl: float | None = 60.0) -> KeyWrite:
    return KeyWrite(SPACE.name, name, holder, value, ttl)


def value_of(store: KeyValueStore, name: str = "a") -> bytes | None:
    _, (entry,) = store.read(SPACE, [name])
    return entry.value if entry else None


# -- the store alone ---------------------------------------------------------------------------------------------------


def test_a_key_is_claimed_by_one(store):
    assert store.claim(claim("first", data=b"1\n2")) is None

    found = store.claim(claim("second"))

    assert (holder_of(found), data_of(found)) == ("first", b"1\n2")
    assert value_of(store) == found


def test_a_claim_ends_with_its_time(store):
    store.claim(claim("first", ttl=0.05))
    wait_until(lambda: store.claim(claim("second")) is None, 5)
    assert holder_of(value_of(store)) == "second"


def test_the_data_of_a_held_key_can_be_replaced_by_others(store):
    store.claim(claim("first", data=b"old", ttl=0.5))

    found = store.claim(claim("second", data=b"new", replace=True))

    assert holder_of(found) == "first"
    assert value_of(store) == b"first\nnew"


def test_only_the_holder_writes_or_gives_up(store):
    store.claim(claim("first"))

    store.apply([write("second", b"stolen"), write("firs"), write("first", b"x", name="absent")])
    assert holder_of(value_of(store)) == "first"
    assert value_of(store, "absent") is None

    store.apply([write("first", b"done: 1", ttl=None)])
    assert value_of(store) == b"done: 1"
    store.apply([write("first")])
    assert value_of(store) == b"done: 1"


def test_a_key_that_was_given_up_can_be_claimed(store):
    store.claim(claim("first"))
    store.apply([write("first")])
    assert store.claim(claim("second")) is None


def test_a_held_key_is_renewed_by_its_holder(store):
    store.claim(claim("first", data=b"x", ttl=0.3))

    assert store.renew(SPACE, "a", "first", 60)
    assert not store.renew(SPACE, "a", "second", 60)
    assert not store.renew(SPACE, "absent", "first", 60)
    store.claim(claim("probe", name="b", ttl=0.35))
    wait_until(lambda: value_of(store, "b") is None, 5)

    assert value_of(store) == b"first\nx"


def test_of_many_claimants_one_has_it(kit):
    won: list[str] = []

    def run(store: KeyValueStore, name: str) -> None:
        if store.claim(claim(name)) is None:
            won.append(name)

    threads = [threading.Thread(target=run, args=(kit.key_values(), f"c{n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert holder_of(value_of(kit.key_values())) == won[0]


def test_claiming_and_applying_cost_a_round_trip_each(store):
    store.claim(claim("warm", name="warm"))
    before = store.round_trips
    store.claim(claim("first"))
    store.apply([write("first"), write("warm", name="warm")])
    assert store.round_trips - before == 2


# -- sending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["store", "apart"])
def test_a_message_is_sent_only_if_its_key_is_free(request, broker, owner, where):
    store = request.getfixturevalue(where)

    sent = broker.publish_claimed(
        messages("one", "two", "free", "plain"),
        [claim("1"), claim("2"), claim("3", name="b"), None],
        store,
    )

    assert [value and holder_of(value) for value in sent] == [None, "1", None, None]
    assert broker.publish_claimed(messages("again"), [claim("4")], store) == [b"1\n"]
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"one", b"free", b"plain"]


@pytest.mark.parametrize("where", ["store", "apart"])
def test_a_claimed_message_may_be_due_later(request, broker, owner, where):
    store = request.getfixturevalue(where)
    now, _ = store.read(SPACE, [])
    late = Message(QUEUE, b"late", 0, now + 1.0)

    assert broker.publish_claimed([late], [claim("1")], store) == [None]

    assert broker.lease(owner, [QUEUE], 10) == []
    assert raws(wait_until(lambda: broker.promote([QUEUE]) and broker.lease(owner, [QUEUE], 10), 10)) == [b"late"]


@pytest.mark.needs("writes_keys")
def test_sending_with_a_claim_costs_one_round_trip_where_the_store_is_shared(broker, store):
    broker.publish(messages("warm"))
    before = broker.round_trips, store.round_trips
    broker.publish_claimed(messages("one", "two"), [claim("1"), claim("2", name="b")], store)
    assert (broker.round_trips - before[0], store.round_trips - before[1]) == (1, 0)


def test_a_producer_that_dies_before_it_sends_frees_the_key_soon(broker, apart, monkeypatch):
    monkeypatch.setattr("celeriac.broker.CLAIM_SECONDS", 0.2)

    def die(_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(broker, "publish", die)
    with pytest.raises(StoreUnavailable):
        Broker.publish_claimed(broker, messages("one"), [claim("1")], apart)
    monkeypatch.undo()

    wait_until(lambda: broker.publish_claimed(messages("two"), [claim("2")], apart) == [None], 5)
    assert broker.depth([QUEUE])[0].ready == 1


def test_a_message_that_is_refused_frees_its_key_at_once(broker, apart, monkeypatch):
    def refuse(_: object) -> None:
        raise ValueError("no room")

    monkeypatch.setattr(broker, "publish", refuse)
    with pytest.raises(ValueError, match="no room"):
        Broker.publish_claimed(broker, messages("one"), [claim("1")], apart)
    monkeypatch.undo()

    assert broker.publish_claimed(messages("two"), [claim("2")], apart) == [None]


def test_an_attempt_of_unknown_fate_can_be_repeated(broker, apart, store):
    for where in (apart, store):
        broker.publish_claimed(messages("one"), [claim("1")], where)
        again = broker.publish_claimed(messages("one"), [claim("1")], where)
        assert again == [None] or holder_of(again[0]) == "1"


# -- settling ----------------------------------------------------------------------------------------------------------


def settled_with(broker: Broker, owner: str, *keys: KeyWrite, tag_of: str = "work") -> Outcome:
    broker.publish(messages(tag_of))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    return Outcome(delivery, State.SUCCEEDED, keys=keys)


@pytest.mark.needs("writes_keys")
def test_keys_are_written_with_the_outcome(broker, store, owner):
    store.claim(claim("mine"))
    store.claim(claim("other", name="b"))

    broker.settle(owner, [settled_with(broker, owner, write("mine", b"done:x"), write("mine", name="b"))])

    assert value_of(store) == b"done:x"
    assert holder_of(value_of(store, "b")) == "other"
    assert broker.leased_count() == 0


@pytest.mark.needs("writes_keys")
def test_a_fenced_outcome_writes_no_keys(broker, store, owner):
    store.claim(claim("mine"))
    outcome = settled_with(broker, owner, write("mine"))
    assert broker.settle(owner, [Outcome(outcome.delivery, State.SUCCEEDED)]).fenced == 0

    assert broker.settle(owner, [outcome]).fenced == 1

    assert holder_of(value_of(store)) == "mine"


@pytest.mark.needs("writes_keys")
def test_keys_are_written_on_behalf_of_a_condemned_owner(broker, store):
    owner = owner_of(broker)
    store.claim(claim("mine"))
    outcome = settled_with(broker, owner, write("mine"))
    broker.condemn(owner)

    broker.settle_condemned(owner, [outcome._replace(state=State.INTERRUPTED, requeue=b"again")])

    assert value_of(store) is None
    assert broker.depth([QUEUE])[0].ready == 1


def test_a_store_elsewhere_is_not_the_brokers(broker, apart):
    assert not broker.shares_keys(apart)
