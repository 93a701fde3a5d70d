"""The contract of :mod:`celeriac.keyvalue`, on every store."""

from __future__ import annotations

import threading
import time

import pytest

from celeriac.keyvalue import ABSENT, Change, KeyValueStore, Namespace
from celeriac.policies.breaking import Shared, read_all
from celeriac.policies.circuit_breaker import Breaker, Status, Tally
from tests.conformance.kits import Kit
from tests.helpers import wait_until

LOCKS = Namespace("locks")
BREAKERS = Namespace("breakers", listed=True)


@pytest.fixture
def store(kit: Kit) -> KeyValueStore:
    return kit.key_values()


def value_of(store: KeyValueStore, name: str, space: Namespace = LOCKS) -> bytes | None:
    _, (entry,) = store.read(space, [name])
    return entry.value if entry else None


def test_an_absent_key_reads_as_none_and_can_be_written_once(store):
    assert store.read(LOCKS, ["a"])[1] == [None]

    assert store.write(LOCKS, "a", b"first", ttl=None, version=ABSENT)
    assert not store.write(LOCKS, "a", b"second", ttl=None, version=ABSENT)

    assert value_of(store, "a") == b"first"


def test_entries_come_in_the_order_asked(store):
    for name in ("a", "b"):
        store.write(LOCKS, name, name.encode() + b":\x00\xff", ttl=None, version=ABSENT)

    _, found = store.read(LOCKS, ["b", "missing", "a"])

    assert [entry and entry.value for entry in found] == [b"b:\x00\xff", None, b"a:\x00\xff"]


def test_a_write_needs_the_version_that_is_there(store):
    written = store.write(LOCKS, "a", b"1", ttl=None, version=ABSENT)
    _, (old,) = store.read(LOCKS, ["a"])
    assert old.version == written
    again = store.write(LOCKS, "a", b"2", ttl=None, version=old.version)
    assert again == store.read(LOCKS, ["a"])[1][0].version

    assert not store.write(LOCKS, "a", b"3", ttl=None, version=old.version)
    assert not store.write(LOCKS, "a", None, ttl=None, version=old.version)

    assert value_of(store, "a") == b"2"


def test_a_version_does_not_come_back_when_a_key_is_deleted_and_written_again(store):
    store.write(LOCKS, "a", b"same", ttl=None, version=ABSENT)
    _, (old,) = store.read(LOCKS, ["a"])
    assert store.write(LOCKS, "a", None, ttl=None, version=old.version)
    assert value_of(store, "a") is None
    store.write(LOCKS, "a", b"same", ttl=None, version=ABSENT)

    assert not store.write(LOCKS, "a", b"stale", ttl=None, version=old.version)


def test_a_key_goes_when_its_time_is_over(store):
    store.write(LOCKS, "a", b"short", ttl=0.05, version=ABSENT)
    store.write(LOCKS, "b", b"long", ttl=60, version=ABSENT)

    wait_until(lambda: value_of(store, "a") is None, 5)

    assert value_of(store, "b") == b"long"
    assert store.write(LOCKS, "a", b"again", ttl=None, version=ABSENT)


def test_what_has_expired_is_deleted(kit, store):
    store.write(LOCKS, "a", b"short", ttl=0.01, version=ABSENT)
    store.write(LOCKS, "b", b"long", ttl=60, version=ABSENT)
    wait_until(lambda: value_of(store, "a") is None, 5)

    assert store.expire() in {0, 1}  # a store that does so by itself says 0
    assert store.expire() == 0

    assert value_of(store, "b") == b"long"


def test_the_time_is_that_of_the_store(store):
    before = time.time()
    now, _ = store.read(LOCKS, [])
    assert before - 5 < now < time.time() + 5


def test_namespaces_are_apart(store):
    store.write(LOCKS, "a", b"lock", ttl=None, version=ABSENT)
    store.write(BREAKERS, "a", b"breaker", ttl=None, version=ABSENT)

    assert value_of(store, "a") == b"lock"
    assert value_of(store, "a", BREAKERS) == b"breaker"


def test_a_listed_namespace_has_the_names_that_are_there(store):
    for name, ttl in (("smtp", None), ("http", None), ("gone", 0.01)):
        store.write(BREAKERS, name, b"open", ttl=ttl, version=ABSENT)
    _, (entry,) = store.read(BREAKERS, ["http"])
    store.write(BREAKERS, "http", None, ttl=None, version=entry.version)

    wait_until(lambda: value_of(store, "gone", BREAKERS) is None, 5)

    assert store.names(BREAKERS) == ["smtp"]
    assert store.names(Namespace("others", listed=True)) == []


def test_an_update_sees_the_old_value_and_returns_its_answer(store):
    def append(old: bytes | None, now: float) -> Change[int]:
        assert now > 1e9
        grown = (old or b"") + b"x"
        return Change(len(grown), grown)

    assert [store.update(LOCKS, "a", append) for _ in range(3)] == [1, 2, 3]
    assert store.update(LOCKS, "a", lambda old, _: Change(old, keep=True)) == b"xxx"
    assert store.update(LOCKS, "a", lambda old, _: Change(old)) == b"xxx"
    assert value_of(store, "a") is None


def test_concurrent_updates_lose_nothing(kit):
    def count(store: KeyValueStore) -> None:
        for _ in range(25):
            store.update(LOCKS, "counter", lambda old, _: Change(None, b"%d" % (int(old or 0) + 1)))

    threads = [threading.Thread(target=count, args=(kit.key_values(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert value_of(kit.key_values(), "counter") == b"200"


def test_reading_and_writing_cost_one_round_trip_each(store):
    store.read(LOCKS, ["warm"])
    before = store.round_trips

    store.read(LOCKS, ["a", "b", "c"])
    store.write(BREAKERS, "a", b"1", ttl=1, version=ABSENT)

    assert store.round_trips - before == 2


def test_what_fails_behind_a_circuit_breaker_costs_one_round_trip_each_time(store):
    mine, other = (Shared(Breaker("smtp", failures=5), lambda: store) for _ in range(2))
    assert mine.look()[0].status is Status.CLOSED
    other.look()
    before = store.round_trips
    for _ in range(3):
        mine.record(Tally(failures=1), None)
    assert store.round_trips - before == 3

    other.record(Tally(failures=1), None)  # it does not know of those, and they count all the same
    mine.record(Tally(failures=1, reason="no"), None)

    assert mine.look()[0].status is Status.OPEN
    assert "5 failures" in read_all(store, [])[1]["smtp"].reason
