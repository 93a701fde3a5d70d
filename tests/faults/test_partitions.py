"""A node that is cut off for longer than its leases last, in both directions or in one, while its tasks go on."""

from __future__ import annotations

import time

import pytest
from celery.exceptions import WorkerLostError
from kombu.exceptions import OperationalError

from tests.faults.sites import QUICK, site_of
from tests.helpers import wait_until

MINUTE = 75.0
"""Seconds; longer than a lease (30), than RabbitMQ's heartbeats from the server's side allow, and than TCP's keepalive."""


@pytest.fixture(params=["redis", "postgres", "rabbitmq", "redis+postgres"])
def site(request, tmp_path):
    with site_of(request, tmp_path) as site:
        yield site


def cut_off(site, stage, seconds, *, replies_only, conf):
    """Cut a node off that runs two tasks, for at least so many seconds and until the other one has taken them over.

    ``replies_only``: what the cut-off node says still arrives.
    """
    with site.far_worker(stage, name="far", pool="threads", concurrency=4) as far:
        late, early = stage.send("hold_late", "late", "gate"), stage.send("hold", "early", "gate")
        stage.wait_for("started", "late")
        stage.wait_for("started", "early")
        with stage.worker(name="near", concurrency=1) as near, site.stage(far=True, **conf) as lonely:
            since = time.monotonic()
            for way in site.ways:
                way.black_hole(requests=not replies_only)
            with pytest.raises(OperationalError, match="Gave up sending"):
                lonely.send("note_late", "unsent", task_id="unsent")
            again = stage.wait_for("started", "late", times=2, timeout=seconds + 60)[1]
            assert again.pid in near.slots()
            with pytest.raises(WorkerLostError, match="may have run"):
                early.get(timeout=60)
            wait_until(lambda: time.monotonic() - since > seconds, seconds + 5)
            stage.effects.open_gate("gate")
            stage.wait_for("ran", "late", times=2, timeout=60)
            assert late.get(timeout=60) == "late"
            for way in site.ways:
                way.resume()
            # Both go on: the near one first, because the far one notices and starts anew.
            after = stage.send_many("note_late", [f"after-{n}" for n in range(20)])
            assert [each.get(timeout=60) for each in after] == [f"after-{n}" for n in range(20)]
            assert near.stop() == 0
        alone = stage.send_many("note_late", [f"alone-{n}" for n in range(20)])
        assert [each.get(timeout=90) for each in alone] == [f"alone-{n}" for n in range(20)]
        stage.wait_until_drained(60)
        assert far.stop() == 0
    counts = stage.effects.count("ran")
    assert stage.effects.count("started") == {"late": 2, "early": 1}
    assert {key: count for key, count in counts.items() if key.startswith(("after", "alone")) and count != 1} == {}
    assert late.get(timeout=10) == "late"
    assert [letter.reason for letter in stage.dead()] == ["lost"]


@pytest.mark.parametrize(
    ("site", "replies_only"),
    [("redis", True), ("rabbitmq", False), pytest.param("redis", False, marks=pytest.mark.slow)]
    + [pytest.param("postgres", False, marks=pytest.mark.slow)]
    + [pytest.param(kind, True, marks=pytest.mark.slow) for kind in ("postgres", "redis+postgres")],
    indirect=["site"],
)
def test_what_a_node_held_is_taken_over_and_what_it_says_too_late_is_refused(site, replies_only):
    """Not with RabbitMQ's replies only: it keeps a connection on which it hears something, and with it what was delivered by it."""
    with site.stage(**QUICK) as stage:
        cut_off(site, stage, 6.0, replies_only=replies_only, conf=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_same_for_a_minute_and_with_the_default_settings(site):
    with site.stage() as stage:
        cut_off(site, stage, MINUTE, replies_only=False, conf={})


@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_what_was_pushed_to_a_lost_node_goes_to_others_when_its_leases_end(site):
    """The server counts its consumers as there until its heartbeats fail, which follows from the lease."""
    with site.stage(celeriac_lease_seconds=3) as stage, site.far_worker(stage, name="far", pool="threads"):
        for way in site.ways:
            way.black_hole(requests=True)
        with stage.worker(name="near", concurrency=1):
            sent = stage.send_many("note_late", [f"k{n}" for n in range(6)])
            assert [each.get(timeout=30) for each in sent] == [f"k{n}" for n in range(6)]
        for way in site.ways:
            way.resume()
    assert set(stage.effects.count("ran").values()) == {1}
