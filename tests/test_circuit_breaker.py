"""Circuit breakers: the arithmetic, and what becomes of tasks when what they call is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import Breaker, Celery
from celeriac.errors import ConfigurationError
from celeriac.policies.circuit_breaker import State, Status, Tally, admit, ended, opened, with_clock
from tests.helpers import wait_until
from tests.stages import STORES, each_stage
from tests.workers import ROOT

HOUR = 3600.0
OUTAGES, TASKS = 2, 15
BREAKER = Breaker("b", failures=3, window=60, cooldown=30, probes=2)
RATED = Breaker("r", rate=0.5, minimum=10, window=60, cooldown=30)

# -- arithmetic --------------------------------------------------------------------------------------------------------


def failing(breaker, state, now, probe=None):
    return ended(breaker, state, now, Tally(failures=1, reason="no"), probe)


def succeeding(breaker, state, now, probe=None):
    return ended(breaker, state, now, Tally(successes=1), probe)


def test_it_opens_at_the_count_within_the_window_and_not_over_more_time():
    state = State()
    for now in (0.0, 40.0, 80.0, 120.0):
        state = failing(BREAKER, state, now)
    assert state.status is Status.CLOSED
    for now in (121.0, 122.0):
        state = failing(BREAKER, state, now)
    assert state.status is Status.OPEN
    assert state.reason == "3 failures within 60 s: no"


def test_it_opens_at_the_rate_but_not_below_the_minimum():
    few, many = State(), State()
    for now in range(9):
        few = failing(RATED, few, float(now))
    for now in range(20):
        many = (failing if now % 2 else succeeding)(RATED, many, float(now) / 10)
        assert (many.status is Status.OPEN) == (now >= 9), now
        if many.status is Status.OPEN:
            break
    assert few.status is Status.CLOSED
    assert succeeding(RATED, few, 9.0).status is Status.CLOSED  # a success opens nothing
    assert failing(RATED, few, 9.0).status is Status.OPEN


def test_after_the_cooldown_it_lets_as_many_probes_through_as_must_succeed_and_then_closes():
    state = opened(BREAKER, State(), 100.0, "x")
    assert not admit(BREAKER, state, 129.9, "a")[1].allowed
    state, first = admit(BREAKER, state, 130.0, "a")
    state, second = admit(BREAKER, state, 130.0, "b")
    state, third = admit(BREAKER, state, 130.0, "c")
    assert (first.probe, second.probe, third.allowed) == (True, True, False)
    state = succeeding(BREAKER, state, 131.0, "a")
    assert state.status is Status.HALF_OPEN
    assert not admit(BREAKER, state, 131.0, "c")[1].allowed
    assert succeeding(BREAKER, state, 132.0, "b").status is Status.CLOSED


def test_a_probe_that_fails_opens_it_again_and_one_that_says_nothing_makes_room_for_another():
    state, _ = admit(BREAKER, opened(BREAKER, State(), 0.0, "x"), 30.0, "a")
    assert failing(BREAKER, state, 31.0, "a").until == 61.0
    state = ended(BREAKER, state, 31.0, Tally(), "a")
    state, again = admit(BREAKER, state, 32.0, "b")
    assert again.probe
    # One whose process died is not waited for for ever.
    state, _ = admit(BREAKER, state, 32.0, "c")
    assert not admit(BREAKER, state, 33.0, "d")[1].allowed
    assert admit(BREAKER, state, 32.0 + BREAKER.probe_seconds, "d")[1].probe


def test_runs_that_began_before_it_opened_change_nothing():
    state = opened(BREAKER, State(), 0.0, "x")
    assert failing(BREAKER, state, 1.0) == succeeding(BREAKER, state, 1.0) == state
    half, _ = admit(BREAKER, state, 30.0, "a")
    assert failing(BREAKER, half, 31.0) == succeeding(BREAKER, half, 31.0, "stranger") == half


def test_one_that_was_opened_for_good_stays_open():
    state = opened(BREAKER, State(), 0.0, "x", for_good=True)
    assert not admit(BREAKER, state, 1e9, "a")[1].allowed


@given(elapsed=st.floats(0, 30), back=st.floats(0, 2 * HOUR))
def test_a_clock_that_steps_back_keeps_it_open_for_no_more_than_one_cooldown_more(elapsed, back):
    state = opened(BREAKER, State(), 1_000_000.0, "x")
    now = 1_000_000.0 + elapsed - back
    waited = 0.0
    while True:
        state, admission = admit(BREAKER, state, now + waited, "a")
        if admission.allowed:
            break
        assert admission.wait <= BREAKER.cooldown + 1e-6
        waited += max(admission.wait, 0.01)
    assert elapsed + waited <= 2 * BREAKER.cooldown + 1


@given(st.lists(st.tuples(st.sampled_from(["fail", "succeed", "ask", "probe fail", "probe succeed", "probe nothing"]),
                          st.floats(-HOUR, 100)), max_size=60))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_whatever_happens_it_is_in_one_of_three_states_and_never_stuck(steps):
    state, now, probing = State(), 1_000_000.0, []
    for number, (what, seconds) in enumerate(steps):
        now += seconds
        if what == "ask":
            before = state
            state, admission = admit(BREAKER, state, now, f"t{number}")
            assert admission.allowed or before.status is not Status.CLOSED
            probing += [f"t{number}"] if admission.probe else []
        elif what.startswith("probe"):
            tally = {"fail": Tally(1), "succeed": Tally(0, 1), "nothing": Tally()}[what.split()[1]]
            state = ended(BREAKER, state, now, tally, probing.pop() if probing else None)
        else:
            state = (failing if what == "fail" else succeeding)(BREAKER, state, now)
        assert State.decode(state.encode()) == state
        assert len(state.probes) <= BREAKER.probes
        assert len(state.buckets) <= 12
        assert sum(b.failures for b in state.buckets) < BREAKER.failures or state.status is not Status.CLOSED
    # From wherever it is, probes that succeed close it.
    for number in range(4):
        now += BREAKER.cooldown + BREAKER.probe_seconds
        state, admission = admit(BREAKER, state, now, f"end{number}")
        assert admission.allowed
        state = succeeding(BREAKER, state, now, f"end{number}" if admission.probe else None)
    assert state.status is Status.CLOSED


def test_a_state_is_moved_along_with_the_clock():
    state = failing(BREAKER, failing(BREAKER, State(), 10_000.0), 10_001.0)
    moved = failing(BREAKER, with_clock(state, 10_001.0 - HOUR), 10_002.0 - HOUR)
    assert moved.status is Status.OPEN


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite"])
def stage(request, tmp_path):
    yield from each_stage(request, tmp_path, "tests.apps.broken")


def command(stage, *arguments):
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": stage.broker_url, "TEST_BACKEND": stage.backend_url,
        "TEST_CONF": json.dumps(stage.conf), "TEST_EFFECTS": str(stage.effects.path),
    }  # fmt: skip
    words = [sys.executable, "-m", "celeriac.cli.main", "-A", stage.module, "breakers", *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def status(stage, name):
    return json.loads(command(stage, "show", name, "--json").stdout)["status"]


@pytest.mark.parametrize("stage", STORES, indirect=True)
def test_what_flaps_is_called_little_while_it_is_down_and_nothing_is_lost(stage):
    """Two nodes of two slots; what they call goes down again and again, and slots are killed meanwhile."""
    down = stage.effects.path.with_name("down")
    nodes = [stage.worker(name=f"node{n}", concurrency=2) for n in range(2)]
    for node in nodes:
        node.launch()
    results = []

    def logged(what):
        return sum(node.log().count(f"Circuit breaker mail {what}") for node in nodes)

    try:
        for outage in range(OUTAGES):
            down.touch()
            before = len(stage.effects.of("failed"))
            results += stage.send_many("send", [f"{outage}-{n}" for n in range(TASKS)])
            failures = wait_until(lambda b=before: len(found := stage.effects.of("failed")[b:]) >= 5 and found, 30)
            os.kill(next(slot for node in nodes for slot in node.slots()), signal.SIGKILL)
            down.unlink()
            # Runs that began before it opened may end well while it is open; this one begins now, and is a probe if need be.
            results.append(stage.send("send", f"{outage}-last"))
            wait_until(lambda n=outage: logged("closes") > n, 30)
            failures = stage.effects.of("failed")[before:]
            seconds = failures[-1].at - failures[0].at
            # Three open it, three more slots are busy then, each half second one probes, and a killed one may be run again.
            assert len(failures) <= 3 + 3 + seconds / 0.5 + 3, (len(failures), seconds)
        for result in results:
            result.get(timeout=60)
        stage.wait_until_drained()
    finally:
        for node in nodes:
            node.close()

    assert len(stage.effects.count("sent")) == OUTAGES * (TASKS + 1)
    assert stage.dead() == []
    assert logged("opens") >= OUTAGES
    assert logged("closes") == OUTAGES


def test_open_it_fails_fast_or_dead_letters_and_a_person_opens_and_closes_it(stage):
    with stage.worker(concurrency=1):
        for how in ("ignored", "quiet", "bad", "ignored"):
            stage.send("quick", how, how)
        assert stage.send("quick", "fine").get(timeout=10) == "fine"
        stage.send("quick", "bad2", "bad")
        with pytest.raises(Exception, match=r"circuit breaker quick is open .2 failures"):
            stage.send("quick", "refused").get(timeout=10)
        for n, how in enumerate(("good", "bad", "other", "good", "bad")):
            stage.send("kept", f"k{n}", how)
        with pytest.raises(Exception, match=r"circuit breaker kept is open .2 of 4 runs failed"):
            stage.send("shares", "refused too").get(timeout=10)
        assert "refused" not in stage.effects.count("called")
        assert [letter.reason for letter in stage.dead() if letter.task.endswith(("shares", "quick"))].count(
            "breaker"
        ) == 1

        listed = json.loads(command(stage, "--json").stdout)
        assert {each["name"]: each["status"] for each in listed} == {"kept": "open", "mail": "closed", "quick": "open"}
        assert command(stage, "close", "quick").returncode == 0
        wait_until(lambda: stage.send("quick", "again").get(timeout=10, propagate=False) == "again", 10)

        assert json.loads(command(stage, "open", "mail", "--json").stdout) == {"name": "mail", "status": "open"}
        parked = wait_until(
            lambda: stage.broker.depth(["celery"])[0].scheduled or (stage.send("send", "later") and 0), 10
        )
        assert parked
        assert command(stage, "open", "nail").stderr.startswith("Error: There is no circuit breaker 'nail'; there is ")


def test_a_run_that_is_killed_at_its_time_limit_counts(stage):
    with stage.worker(concurrency=2):
        for n in range(2):
            stage.client.send_task(f"{stage.module}.quick", (f"s{n}", "slow"), time_limit=0.3)
        wait_until(lambda: status(stage, "quick") == "open", 15, interval=0.3)


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failures": 0}, "failures must be a whole number above 0"),
        ({"window": -1}, "window must be seconds above 0"),
        ({"rate": 1.5}, "rate must be above 0 and at most 1"),
        ({"minimum": 5}, "minimum belongs to rate"),
        ({"when_open": "wait"}, "when_open is one of park, fail, dead_letter"),
        ({"only": (OSError,), "ignore": OSError}, "both only and ignore"),
        ({"only": ("OSError",)}, "only must be exception classes"),
    ],
)
def test_breakers_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Breaker("b", **options)


def test_tasks_that_contradict_each_other_are_refused_when_they_are_declared():
    app = Celery("declared", broker="sqlite:///unused.sqlite3", set_as_current=False)

    def body(): ...

    def declare(name, breaker):
        app.task(body, name=name, lazy=False, shared=False, circuit_breaker=breaker)

    declare("one", Breaker("b", failures=3))
    declare("two", "b")
    declare("three", Breaker("b", failures=3, when_open="fail"))
    with pytest.raises(ConfigurationError, match="Tasks one and four say different things of the circuit breaker 'b'"):
        declare("four", Breaker("b", failures=4))
    with pytest.raises(ConfigurationError, match=r"is a name or a celeriac\.Breaker, not int"):
        declare("five", 5)
