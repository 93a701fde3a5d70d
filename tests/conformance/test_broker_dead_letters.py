"""What every broker must show: how much lies where, and the dead letters."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.message import Message
from celeriac.outcome import DeadLetter, Outcome, State
from tests.conformance.kits import (
    QUEUE,
    TTL,
    failed,
    kill,
    messages,
    owner_of,
    places,
    raws,
)
from tests.helpers import wait_until

# -- looking -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("promotes")
def test_depth_counts_what_lies_where(broker):
    owner = owner_of(broker, ["x"])
    broker.publish(messages("1", "2", queue="x") + messages("3", queue="x", priority=9))
    broker.publish(messages("4", queue="x", due=time.time() + 100))
    broker.lease(owner, ["x"], 1)
    y, x = broker.depth(["y", "x"])
    assert (x.queue, x.ready, x.scheduled, x.consumers) == ("x", 2, 1, 1)
    assert (y.queue, y.ready, y.scheduled, y.consumers, y.oldest_age) == ("y", 0, 0, 0, None)
    assert broker.leased_count() == 1
    assert broker.depth([]) == []


@pytest.mark.needs("shows_age")
def test_depth_tells_how_long_the_next_message_has_waited(broker):
    raw = b'{"headers": {"celeriac-sent": %f}}' % time.time()
    broker.publish(messages(raw))
    age = wait_until(lambda: broker.depth([QUEUE])[0].oldest_age)
    assert 0 < age < 10


def test_depth_counts_only_live_consumers(broker):
    stays, leaves, dies = owner_of(broker), owner_of(broker), owner_of(broker, ttl=0.05)
    broker.unregister(leaves)
    wait_until(lambda: broker.expired() == [dies])
    assert broker.depth([QUEUE])[0].consumers == 1
    assert broker.beat([stays], [QUEUE], TTL) == []


@pytest.mark.needs("promotes")
def test_purging_throws_away_what_is_ready_or_scheduled_but_not_what_is_leased(broker, owner):
    broker.publish(messages("held", "1", "2") + messages("3", priority=9) + messages("4", due=time.time() + 100))
    broker.publish(messages("other", queue="other"))
    (held,) = broker.lease(owner, [QUEUE], 1)
    assert broker.purge(QUEUE) == 4
    assert broker.purge(QUEUE) == 0
    assert broker.leased(owner) == [held]
    assert places(broker, [QUEUE, "other"]) == 2


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_a_dead_letter_keeps_everything(broker, owner):
    raw = b"\x00 not json \xff"
    broker.publish(messages(raw))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    letter = DeadLetter(
        "poison", "Boom: ü", "app.resize", "id-1", "Traceback…\n  line", 3, 2, "w@host", 1_700_000_000.25
    )
    broker.settle(owner, [Outcome(delivery, State.FAILED, dead=letter)])
    assert broker.leased_count() == 0
    (dead,) = broker.dead_letters()
    assert (dead.queue, dead.raw, dead.at) == (QUEUE, raw, pytest.approx(letter.at))
    assert (dead.reason, dead.error, dead.task, dead.task_id) == ("poison", "Boom: ü", "app.resize", "id-1")
    assert (dead.traceback, dead.attempts, dead.crashes, dead.worker) == (letter.traceback, 3, 2, "w@host")
    assert broker.dead_letter(dead.id) == dead


def test_dead_letters_are_listed_newest_first_in_pages(broker):
    for n in range(5):
        kill(broker, str(n))
    first = broker.dead_letters(limit=2)
    second = broker.dead_letters(limit=2, before=first[-1].id)
    third = broker.dead_letters(limit=2, before=second[-1].id)
    assert [dead.raw for dead in (*first, *second, *third)] == [b"4", b"3", b"2", b"1", b"0"]
    assert broker.dead_letters(before=third[-1].id) == []
    assert broker.dead_count() == 5


@pytest.mark.needs("keeps_place")
def test_a_replayed_dead_letter_goes_to_the_tail_of_its_queue_with_its_priority(broker, owner):
    broker.publish(messages("doomed", priority=6))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.settle(owner, [failed(delivery)])
    broker.publish(messages("waiting", priority=6) + messages("last", priority=9))
    assert broker.replay(broker.dead_letters()[0].id)
    assert broker.dead_count() == 0
    assert raws(broker.lease(owner, [QUEUE], 10)) == [b"waiting", b"doomed", b"last"]


def test_replaying_twice_sends_once(kit):
    broker = kit.broker()
    kill(broker)
    (dead,) = broker.dead_letters()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda node: node.replay(dead.id), [kit.broker() for _ in range(4)]))
    assert sorted(answers) == [False, False, False, True]
    assert broker.depth([QUEUE])[0].ready == 1


def test_a_dead_letter_is_replayed_edited_and_elsewhere(broker, owner):
    kill(broker)
    assert broker.replay(broker.dead_letters()[0].id, Message("other", b"edited"))
    assert [depth.ready for depth in broker.depth([QUEUE, "other"])] == [0, 1]
    assert raws(broker.lease(owner, ["other"], 1)) == [b"edited"]


def test_discarded_dead_letters_are_gone(broker):
    for n in range(3):
        kill(broker, str(n))
    newest, _, oldest = broker.dead_letters()
    assert broker.discard([newest.id, oldest.id]) == 2
    assert broker.discard([newest.id]) == 0
    assert broker.discard([]) == 0
    assert [dead.raw for dead in broker.dead_letters()] == [b"1"]
    assert not broker.replay(newest.id)
    assert broker.dead_letter(newest.id) is None


def test_dead_letters_expire_by_the_time_of_death_the_oldest_first(broker):
    for n in range(5):
        kill(broker, str(n), at=1_700_000_000.5 + n)
    assert broker.expire_dead(1_700_000_000.0) == 0
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 2
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3", b"2"]
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 1
    assert broker.expire_dead(1_700_000_003.0, limit=2) == 0
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3"]
