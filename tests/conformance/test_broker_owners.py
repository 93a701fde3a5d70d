"""What every broker must do for owners: they are registered, beat, expire, are condemned and rescued."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.errors import OwnerLost
from celeriac.message import Delivery
from celeriac.outcome import Outcome, State
from tests.conformance.kits import (
    QUEUE,
    TTL,
    done,
    failed,
    messages,
    owner_of,
    raws,
    tags,
)
from tests.helpers import wait_until

# -- owners ------------------------------------------------------------------------------------------------------------


def test_an_unknown_owner_can_neither_lease_nor_settle(broker):
    broker.publish(messages("a"))
    with pytest.raises(OwnerLost):
        broker.lease("nobody", [QUEUE], 1)
    with pytest.raises(OwnerLost):
        broker.settle("nobody", done(Delivery(1, QUEUE, b"a")))
    assert broker.depth([QUEUE])[0].ready == 1


@pytest.mark.needs("keeps_leases")
def test_a_condemned_owner_can_neither_lease_nor_settle_nor_release(broker, owner):
    broker.publish(messages("a", "b"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.condemn(owner)
    with pytest.raises(OwnerLost):
        broker.turn(owner, done(delivery), [QUEUE], 1)
    assert broker.release(owner, [delivery.tag]) == 0
    assert broker.leased(owner) == [delivery]
    assert broker.depth([QUEUE])[0].ready == 1


def test_beating_tells_which_owners_are_lost(broker):
    alive, condemned = owner_of(broker), owner_of(broker)
    broker.condemn(condemned)
    assert sorted(broker.beat([alive, condemned, "nobody"], [QUEUE], TTL)) == sorted([condemned, "nobody"])
    assert broker.beat([], [QUEUE], TTL) == []


def test_beating_many_owners_is_one_round_trip(broker):
    owners = [owner_of(broker) for _ in range(20)]
    before = broker.round_trips
    assert broker.beat(owners, [QUEUE], TTL) == []
    assert broker.round_trips - before == 1


def test_an_owner_expires_when_its_time_runs_out(broker):
    stays, goes = owner_of(broker), owner_of(broker, ttl=0.05)
    assert wait_until(broker.expired) == [goes]
    assert stays not in broker.expired()


def test_beating_keeps_an_owner_from_expiring(broker):
    first, second = owner_of(broker, ttl=0.05), owner_of(broker, ttl=0.05)
    assert broker.beat([first], [QUEUE], TTL) == []
    wait_until(lambda: second in broker.expired())
    assert broker.expired() == [second]


def test_an_expired_owner_that_nobody_condemned_may_go_on(broker):
    broker.publish(messages("a"))
    owner = owner_of(broker, ttl=0.05)
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    wait_until(broker.expired)
    assert broker.beat([owner], [QUEUE], TTL) == []
    assert broker.settle(owner, done(delivery)).fenced == 0
    assert broker.expired() == []


def test_expired_owners_come_in_limited_numbers(broker):
    owners = {owner_of(broker, ttl=0.01) for _ in range(5)}
    wait_until(lambda: len(broker.expired()) == 5)
    assert len(broker.expired(limit=2)) == 2
    assert set(broker.expired()) == owners


def test_a_condemned_owner_is_left_to_its_rescuer_for_a_while(broker, owner):
    broker.publish(messages("a"))
    broker.lease(owner, [QUEUE], 1)
    broker.condemn(owner)
    assert broker.expired() == []


def test_an_owner_that_holds_leases_cannot_be_unregistered(broker, owner):
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    assert not broker.unregister(owner)
    broker.settle(owner, done(delivery))
    assert broker.unregister(owner)
    with pytest.raises(OwnerLost):
        broker.lease(owner, [QUEUE], 1)


def test_unregistering_twice_does_no_harm(broker, owner):
    assert broker.unregister(owner)
    assert broker.unregister(owner)


def test_registering_again_does_no_harm(broker, owner):
    broker.publish(messages("a"))
    held = broker.lease(owner, [QUEUE], 1)
    broker.register(owner, [QUEUE], TTL)
    assert broker.leased(owner) == held


def test_condemning_somebody_unknown_fences_the_name_off_or_does_nothing(broker):
    broker.condemn("nobody")
    with pytest.raises(OwnerLost):
        broker.lease("nobody", [QUEUE], 1)


# -- rescue ------------------------------------------------------------------------------------------------------------


def test_what_an_owner_holds_is_listed_by_ascending_tag(broker, owner):
    broker.publish(messages("low", priority=9) + messages("high"))
    held = broker.lease(owner, [QUEUE], 10)
    assert broker.leased(owner) == held
    assert tags(held) == sorted(tags(held))
    assert broker.leased(owner, limit=1) == held[:1]
    assert broker.leased("nobody") == []


@pytest.mark.needs("keeps_leases")
def test_a_rescuer_settles_for_the_condemned(broker, owner):
    broker.publish(messages("a", "b", "c"))
    broker.lease(owner, [QUEUE], 3)
    broker.condemn(owner)
    back, dead, gone = broker.leased(owner)
    outcomes = [
        Outcome(back, State.INTERRUPTED, requeue=b"a, crashed once"),
        failed(dead, "poison"),
        Outcome(gone, State.REVOKED),
    ]
    assert broker.settle_condemned(owner, outcomes).fenced == 0
    assert broker.unregister(owner)
    assert raws(broker.lease(owner_of(broker), [QUEUE], 10)) == [b"a, crashed once"]
    assert broker.dead_count() == 1


@pytest.mark.needs("keeps_leases")
def test_of_two_rescuers_at_once_each_message_is_settled_by_one(kit):
    broker = kit.broker()
    owner = owner_of(broker)
    broker.publish(messages(*(str(n) for n in range(200))))
    broker.lease(owner, [QUEUE], 200)
    start = threading.Barrier(2)

    def rescue(rescuer):
        rescuer.condemn(owner)
        start.wait(10)
        fenced = 0
        while held := rescuer.leased(owner, limit=20):
            outcomes = [Outcome(d, State.INTERRUPTED, requeue=d.raw) for d in held]
            fenced += rescuer.settle_condemned(owner, outcomes).fenced - len(held)
        return -fenced

    with ThreadPoolExecutor(2) as pool:
        settled = sum(pool.map(rescue, [kit.broker(), kit.broker()]))
    assert settled == 200
    assert sorted(int(raw) for raw in raws(broker.lease(owner_of(broker), [QUEUE], 500))) == list(range(200))
