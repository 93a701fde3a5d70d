"""A link with a long way and little room: work goes on in batches, and nobody is taken for dead."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest

from tests.faults.sites import QUICK, site_of
from tests.helpers import wait_until

TASKS = 300
ONE_WAY = 0.1
"""Seconds."""
RATE = 200_000
"""Bytes per second."""
LEASES = TASKS // 6
"""Most for all the tasks.  Batches double, so that some 10 for each slot are enough; stock Celery fetches one task at a time."""

RECEIVED = re.compile(r"\[(\S+ \S+): INFO/(Slot-\d+)\] Task \S+note_late\S+ received")


@pytest.fixture(params=["redis", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("postgres", "rabbitmq"))])
def site(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


def leases(log):
    """How many batches the tasks came in: those of one batch are received within less than a round trip."""
    last, count = {}, 0
    for at, slot in RECEIVED.findall(log):
        moment = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=timezone.utc).timestamp()
        count += moment - last.get(slot, 0.0) > ONE_WAY
        last[slot] = moment
    return count


def test_work_is_fetched_in_batches_and_long_tasks_keep_their_leases(site):
    lease = 2
    patient = {"celeriac_lease_seconds": lease, "broker_heartbeat": QUICK["broker_heartbeat"]}
    keys = [f"k{n}" for n in range(TASKS)]
    with site.stage(**patient) as stage, site.far_worker(stage, name="far") as far:
        for way in site.ways:
            way.delay(ONE_WAY)
            way.limit(RATE)
        long = stage.send("hold_late", "long", "gate")
        (started,) = stage.wait_for("started", "long")
        with stage.worker(name="near", concurrency=1) as near:  # it would take over what looks abandoned
            wait_until(
                lambda: stage.send("note_late", "tick").get(timeout=30) and is_older(stage, started, 2.5 * lease), 60
            )
            assert near.stop() == 0
        stage.effects.open_gate("gate")
        assert long.get(timeout=60) == "long"
        stage.send_many("note_late", keys)
        wait_until(lambda: set(stage.effects.count("ran")) >= set(keys), 90)
        stage.wait_until_drained(60)
        for way in site.ways:
            way.delay(0)
            way.limit(0)
        assert far.stop() == 0
        assert "taken over" not in near.log() + far.log()
        assert 0 < leases(far.log()) < LEASES
        assert stage.effects.count("started") == {"long": 1}
        assert {stage.effects.count("ran")[key] for key in ("long", *keys)} == {1}
        assert stage.dead() == []


def is_older(stage, started, seconds):
    """Whether the last tick came so many seconds after a task had started."""
    return stage.effects.of("ran", "tick")[-1].at - started.at > seconds
