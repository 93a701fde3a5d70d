"""A link with a long way and little room: work goes on in batches, and nobody is taken for dead."""

from __future__ import annotations

import time

import pytest

from tests.faults.sites import QUICK, site_of
from tests.helpers import wait_until

TASKS = 300
ONE_WAY = 0.1
"""Seconds."""
RATE = 200_000
"""Bytes per second."""
ROUND_TRIPS = TASKS // 3
"""Most for all the tasks; one for each would be three times as many, and stock Celery's four or five for each, more than a thousand."""


@pytest.fixture(params=["redis", "postgres", "rabbitmq"])
def site(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


def test_work_is_fetched_and_settled_in_batches_and_long_tasks_keep_their_leases(site):
    patient = {
        **QUICK,
        "broker_transport_options": {},
        "result_backend_transport_options": {},
        "redis_socket_timeout": 30.0,
    }
    keys = [f"k{n}" for n in range(TASKS)]
    with site.stage(**patient) as stage, site.far_worker(stage, name="far", pool="threads", concurrency=2) as far:
        long = stage.send("hold_late", "long", "gate")
        stage.wait_for("started", "long")
        for way in site.ways:
            way.delay(ONE_WAY)
            way.limit(RATE)
        since = time.monotonic()
        with stage.worker(name="near", concurrency=1) as near:  # it would take over what looks abandoned
            wait_until(lambda: time.monotonic() - since > 3 * patient["celeriac_lease_seconds"], 30)
            assert near.stop() == 0
        before = sum(way.round_trips for way in site.ways)
        stage.send_many("note_late", keys)
        wait_until(lambda: len(stage.effects.count("ran")) == TASKS, 90)
        stage.effects.open_gate("gate")
        assert long.get(timeout=60) == "long"
        stage.wait_until_drained(60)
        assert sum(way.round_trips for way in site.ways) - before < ROUND_TRIPS
        for way in site.ways:
            way.delay(0)
            way.limit(0)
        assert far.stop() == 0
        assert "taken over" not in near.log() + far.log()
    assert stage.effects.count("started") == {"long": 1}
    assert set(stage.effects.count("ran").values()) == {1}
    assert stage.dead() == []
