"""Connections that are reset after so many bytes, at every place of a publish, a lease and a settle."""

from __future__ import annotations

import json
import os

import pytest
from celery import chain, chord
from kombu.exceptions import OperationalError

from celeriac.compat.envelope import decode
from celeriac.outcome import Outcome, State
from tests.faults.sites import KINDS, site_of
from tests.helpers import wait_until

PLACES = 4
"""Cuts of each direction.  ``CUTS=100`` in the environment makes more."""

SENT = 20


@pytest.fixture(params=KINDS)
def site(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


def places(total, count=None):
    """Numbers of bytes from 0 to a little less than ``total``."""
    count = count or int(os.environ.get("CUTS", PLACES))
    return [total * n // count for n in range(count)]


# -- publish -----------------------------------------------------------------------------------------------------------


def take_all(broker):
    """Take what is queued; return the ids of the tasks."""
    broker.register("taker", ["celery"], 60)
    taken = []
    while leased := broker.lease("taker", ["celery"], 1000):
        taken += leased
        broker.settle("taker", [Outcome(delivery, State.SUCCEEDED) for delivery in leased])
    broker.unregister("taker")
    return [decode(delivery.raw)["headers"]["id"] for delivery in taken]


def send_batch(stage, ids):
    """Send a batch; return whether the call said that it was sent."""
    try:
        with stage.client.batch():
            for task_id in ids:
                stage.send("note_late", task_id, task_id=task_id)
    except OperationalError:
        return False
    return True


@pytest.mark.parametrize("site", ["redis", "postgres", "rabbitmq"], indirect=True)
@pytest.mark.parametrize("tries_again", [False, True])
def test_a_publish_that_is_cut_anywhere_is_sent_or_said_to_be_unsent_and_the_ids_stay(site, tries_again):
    """What a call said is sent is there, once unless it had to be tried again; what it gave up may be there."""
    atomic = not site.broker.startswith("amqp")
    with site.stage() as near, site.stage(far=True, task_publish_retry=tries_again) as far:
        way = site.broker_way
        assert send_batch(far, ["warm"])
        before = way.requests.carried, way.replies.carried
        assert send_batch(far, [f"w{n}" for n in range(SENT)])
        sizes = way.requests.carried - before[0], way.replies.carried - before[1]
        take_all(near.broker)
        given_up = 0
        for replies in (False, True):
            for place in places(sizes[replies]):
                ids = [f"{replies:d}-{place}-{n}" for n in range(SENT)]
                way.cut_after(place, replies=replies)
                told = send_batch(far, ids)
                assert told or not tries_again
                given_up += not told
                way.resume()
                taken = take_all(near.broker)
                assert set(taken) <= set(ids)
                if told:
                    assert set(taken) == set(ids)
                if not tries_again:
                    assert len(taken) == len(set(taken))
                if atomic:
                    assert len(taken) in {0, SENT, *([2 * SENT] if tries_again else [])}
        assert given_up == 0 if tries_again else given_up > 0


# -- lease and settle --------------------------------------------------------------------------------------------------


def send_workload(stage, name):
    """Plain tasks, a chain and a chord; return the results that are to be waited for and the keys of all tasks."""
    note = f"{stage.module}.note_late"

    def task(key):
        return stage.client.signature(note, (f"{name}-{key}",), immutable=True)

    plain = [f"p{n}" for n in range(6)]
    with stage.client.batch():
        results = [task(key).apply_async() for key in plain]
        results.append(chain(task("c1"), task("c2"), app=stage.client).apply_async())
        results.append(chord([task("m1"), task("m2")], task("body"), app=stage.client).apply_async())
    return results, {f"{name}-{key}" for key in (*plain, "c1", "c2", "m1", "m2", "body")}


def run_workload(stage, name, follow_ups=1):
    """Run it; what follows a task may be sent ``follow_ups`` times."""
    results, keys = send_workload(stage, name)

    def ran():
        return {key: count for key, count in stage.effects.count("ran").items() if key in keys}

    wait_until(lambda: set(ran()) == keys, 30, lambda: f"{name}: never ran: {sorted(keys - set(ran()))}")
    assert [result.get(timeout=30) for result in results] == [
        *(f"{name}-p{n}" for n in range(6)), f"{name}-c2", f"{name}-body",
    ]  # fmt: skip
    stage.wait_until_drained(30)
    counts = ran()
    for key in (f"{name}-c2", f"{name}-body"):
        assert 1 <= counts.pop(key) <= follow_ups
    assert set(counts.values()) == {1}
    assert stage.dead() == []


@pytest.mark.timeout(600 if "CUTS" in os.environ else 120)
def test_work_that_is_cut_anywhere_runs_once_and_has_one_outcome(site):
    """Whatever answer was lost: no body runs twice, and the chain's next link and the chord's body are sent once.

    Where the broker does not write results, what follows a task is sent before that is settled: when the server's confirm is
    lost it is sent again.
    """
    once = site.broker_way is site.backend_way
    with site.stage() as stage, site.far_worker(stage, concurrency=1):
        run_workload(stage, "warm")
        cuts = 0
        for way in site.ways:
            before = way.requests.carried, way.replies.carried
            run_workload(stage, f"measured-{way.port}")
            sizes = way.requests.carried - before[0], way.replies.carried - before[1]
            for replies in (False, True):
                for place in places(sizes[replies]):
                    way.cut_after(place, replies=replies)
                    run_workload(stage, json.dumps([way.port, replies, place], separators=(",", ":")), 1 if once else 2)
                    cuts += way.is_cut
                    way.resume()
        assert cuts >= PLACES
