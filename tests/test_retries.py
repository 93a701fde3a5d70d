"""Retries: the arithmetic with an injected clock and dice, and real workers that obey it."""

from __future__ import annotations

import json
import math
import urllib.error
from datetime import datetime, timedelta, timezone
from email.message import Message as Headers
from email.utils import format_datetime
from itertools import pairwise

import httpx
import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from celeriac import Celery, Retry
from celeriac.cli.retries import retries
from celeriac.compat.patterns.retries import rules_of
from celeriac.errors import ConfigurationError
from celeriac.policies.retries import parse_retry_after, retry_after, rule_for, schedule
from tests.helpers import wait_until
from tests.stages import STORES, lasting_stage

seconds = st.floats(0, 1e6)
jitters = st.one_of(st.sampled_from(["none", "full", "equal"]), st.floats(0, 100))


@st.composite
def policies(draw):
    delay = draw(seconds)
    return Retry(
        delay=delay,
        growth=draw(st.sampled_from(["fixed", "linear", "exponential"])),
        factor=draw(st.floats(1, 1e3)),
        cap=delay + draw(seconds),
        jitter=draw(jitters),
        times=draw(st.one_of(st.none(), st.integers(0, 50))),
        retry_for=draw(st.one_of(st.none(), st.floats(0.001, 1e6))),
        retry_after=draw(seconds),
    )


# -- arithmetic --------------------------------------------------------------------------------------------------------


@given(policies(), st.integers(0, 10**6))
def test_delays_are_finite_within_their_bounds_and_never_above_the_cap(retry, retries):
    low, high = retry.bounds(retries)
    assert 0 <= low <= high <= retry.cap
    assert math.isfinite(high)


@given(policies(), st.integers(0, 10**5))
def test_delays_never_get_shorter(retry, retries):
    assert retry.bounds(retries + 1)[1] >= retry.bounds(retries)[1]


@given(policies(), st.integers(0, 60), st.floats(0, 1e7), st.one_of(st.none(), st.floats(0, 1e9)), st.floats(0, 1))
def test_what_is_decided_is_within_count_time_and_bounds(retry, retries, elapsed, hint, dice):
    delay = retry.next_delay(retries, elapsed, hint, lambda low, high: low + (high - low) * dice)
    low, high = retry.bounds(retries)
    if delay is None:
        longest = max(high, min(hint or 0, retry.retry_after))
        counted_out = retry.times is not None and retries >= retry.times
        assert counted_out or (retry.retry_for is not None and elapsed + longest > retry.retry_for)
        return
    assert retry.times is None or retries < retry.times
    assert retry.retry_for is None or elapsed + delay <= retry.retry_for
    assert low <= delay <= max(high, min(hint or 0, retry.retry_after)) + 1e-9
    if hint is not None:
        assert delay >= min(hint, retry.retry_after)


@given(policies())
def test_the_printed_schedule_is_what_happens_with_the_worst_and_the_best_dice(retry):
    for dice in (min, max):
        elapsed, retries = 0.0, 0
        while retries < 60 and (delay := retry.next_delay(retries, elapsed, None, dice)) is not None:
            elapsed, retries = elapsed + delay, retries + 1
        steps = schedule(retry, 60)
        # With the shortest delays all of them come, with the longest those that are sure.
        assert retries == (len(steps) if dice is min else sum(step.sure for step in steps))


def test_how_delays_grow():
    def delays(retry):
        return [retry.bounds(n)[1] for n in range(5)]

    assert delays(Retry.fixed(5)) == [5, 5, 5, 5, 5]
    assert delays(Retry.linear(5, cap=18)) == [5, 10, 15, 18, 18]
    assert delays(Retry.exponential(1, cap=10)) == [1, 2, 4, 8, 10]
    assert delays(Retry.exponential(1, factor=3, cap=100)) == [1, 3, 9, 27, 81]
    assert Retry.fixed(10, jitter="full").bounds(0) == (0, 10)
    assert Retry.fixed(10, jitter="equal").bounds(0) == (5, 10)
    assert Retry.fixed(10, jitter=20).bounds(0) == (8, 12)
    assert Retry.fixed(10, jitter=20, cap=11).bounds(0) == (8, 11)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"delay": -1}, "delay is -1"),
        ({"delay": float("nan")}, "delay is nan"),
        ({"growth": "quadratic"}, "fixed, linear, exponential"),
        ({"factor": 0.5}, "would shrink"),
        ({"delay": 10, "cap": 1}, "below delay"),
        ({"jitter": "some"}, "none, full, equal"),
        ({"jitter": 101}, "0 to 100"),
        ({"times": -1}, "whole number"),
        ({"times": True}, "whole number"),
        ({"retry_for": 0}, "above 0"),
    ],
)
def test_numbers_that_cannot_work_are_refused(options, told):
    with pytest.raises(ConfigurationError, match=told):
        Retry(**options)


# -- what the server says ----------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()


class Told(Exception):
    def __init__(self, said):
        super().__init__(str(said))
        self.retry_after = said


def http_error(value):
    request = httpx.Request("GET", "http://a.test")
    response = httpx.Response(429, headers={"retry-after": value}, request=request)
    return httpx.HTTPStatusError("429", request=request, response=response)


def test_retry_after_is_found_where_clients_keep_it():
    later = datetime.fromtimestamp(NOW + 90, timezone.utc)
    assert retry_after(Told(30), NOW) == 30
    assert retry_after(Told(timedelta(minutes=1)), NOW) == 60
    assert retry_after(Told(later), NOW) == 90
    assert retry_after(http_error("120"), NOW) == 120
    assert retry_after(http_error(format_datetime(later, usegmt=True)), NOW) == 90
    headers = Headers()
    headers["Retry-After"] = "7"
    assert retry_after(urllib.error.HTTPError("http://a.test", 503, "no", headers, None), NOW) == 7
    wrapped = ValueError("payment failed")
    wrapped.__cause__ = http_error("5")
    assert retry_after(wrapped, NOW) == 5
    assert retry_after(ValueError("no server"), NOW) is None


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none(), st.booleans(), st.datetimes()))
def test_whatever_a_server_says_becomes_a_number_of_seconds_or_nothing(said):
    wait = parse_retry_after(said, NOW)
    assert wait is None or (wait >= 0 and math.isfinite(wait))


def test_the_past_and_nonsense():
    assert parse_retry_after("-5", NOW) == 0
    assert parse_retry_after(format_datetime(datetime.fromtimestamp(NOW - 60, timezone.utc), usegmt=True), NOW) == 0
    for nonsense in ("soon", "", "inf", "nan", object(), True):
        assert parse_retry_after(nonsense, NOW) is None


# -- declared ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path):
    return Celery("retries", broker=f"sqlite:///{tmp_path}/q.sqlite3", set_as_current=False)


def declare(app, **options):
    def body(): ...

    task = app.task(shared=False, **options)(body)
    assert task.name
    return task


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"retries": 3}, "celeriac.Retry .* belongs"),
        ({"retries": {"ValueError": Retry()}}, "class of exceptions"),
        ({"retries": {KeyboardInterrupt: Retry()}}, "class of exceptions"),
        ({"retries": Retry(), "autoretry_for": (OSError,)}, "autoretry_for, which is Celery's own"),
        ({"retries": Retry(), "max_retries": 7}, "max_retries, which is Celery's own"),
        ({"retries": Retry(times=None)}, "for ever"),
        ({"retry_for": "1h"}, "number of seconds"),
        ({"retry_fro": 3}, "Did you mean 'retry_for'"),
    ],
)
def test_what_contradicts_or_cannot_work_is_refused_when_the_task_is_declared(app, options, told):
    with pytest.raises(ConfigurationError, match=told):
        declare(app, **options)


def test_the_most_specific_rule_counts(app):
    task = declare(app, retries={OSError: Retry.fixed(1), ConnectionError: Retry.fixed(2), TimeoutError: False})
    rules = rules_of(task)
    assert rule_for(rules, ConnectionResetError()).delay == 2
    assert rule_for(rules, FileNotFoundError()).delay == 1
    assert rule_for(rules, TimeoutError()) is None
    assert rule_for(rules, ValueError()) is None


def test_celerys_own_options_are_no_typing_errors(app):
    task = declare(app, autoretry_for=(OSError,), retry_backoff=True, retry_jitter=False, retry_for=60)
    assert task.retry_for == 60


def test_an_eager_task_is_tried_again_without_waiting(app):
    runs = []

    @app.task(retries=Retry.fixed(3600, times=2), shared=False)
    def flaky():
        runs.append(1)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        flaky.apply().get()
    assert len(runs) == 3
    with pytest.raises(OSError, match="no"):
        flaky()
    assert len(runs) == 4


# -- printed -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def printed(app):
    def printed(task, *args):
        context = CLIContext(app, no_color=True, workdir=None)
        return CliRunner().invoke(retries, [task, *args], obj=context, catch_exceptions=False)

    return printed


def test_the_schedule_of_a_task_is_printed(app, printed):
    rules = {OSError: Retry.exponential(1, cap=5, jitter="equal", times=4), ValueError: False}
    name = declare(app, retries=rules, retry_for=11).name
    lines = printed(name).output.splitlines()
    assert lines[0].startswith(
        "OSError: exponential x2 from 1 s, at most 5 s, jitter equal, Retry-After honoured up to 3600 s"
    )
    assert [line.split() for line in lines[2:6]] == [
        ["1", "0.5", "to", "1", "0.5", "to", "1"],
        ["2", "1", "to", "2", "1.5", "to", "3"],
        ["3", "2", "to", "4", "3.5", "to", "7"],
        ["4", "2.5", "to", "5", "6", "to", "12", "perhaps"],
    ]
    assert lines[6] == "Gives up after 4 retries, 6 to 12 s after the first run began; at most 4 within 11 s."
    assert lines[8] == "ValueError: never tried again"
    told = json.loads(printed(name, "--json").output)
    assert [rule["for"] for rule in told["rules"]] == ["OSError", "ValueError"]
    assert told["rules"][0]["retries"][3] == {
        "number": 4, "shortest": 2.5, "longest": 5.0, "earliest": 6.0, "latest": 12.0, "sure": False,
    }  # fmt: skip


def test_the_schedule_of_celerys_own_options_is_printed(app, printed):
    backoff = {"autoretry_for": (OSError,), "retry_backoff": 2, "retry_backoff_max": 6, "max_retries": 3}
    (rule,) = json.loads(printed(declare(app, **backoff).name, "--json").output)["rules"]
    assert [(step["shortest"], step["longest"]) for step in rule["retries"]] == [(0, 2), (0, 4), (0, 6)]


def test_what_a_body_does_by_itself_is_printed_by_the_tasks_defaults(app, printed):
    (rule,) = json.loads(printed(declare(app, default_retry_delay=7, max_retries=2).name, "--json").output)["rules"]
    assert (rule["for"], [step["latest"] for step in rule["retries"]]) == ("self.retry()", [7, 14])


def test_an_unknown_task_is_answered_with_a_guess(app, printed):
    name = declare(app).name
    ended = printed(name[:-1] + "i")
    assert ended.exit_code == 1
    assert f"Did you mean {name}?" in ended.output


# -- at run time -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STORES)
def stage(request, tmp_path_factory):
    for stage in lasting_stage(request, tmp_path_factory.mktemp("retries"), "tests.apps.typed", 952):
        with stage.worker(pool="threads", concurrency=8):
            yield stage


def gaps(stage, key):
    at = [effect.at for effect in stage.effects.of("attempt", key)]
    return [later - earlier for earlier, later in pairwise(at)]


def letter_of(stage, result):
    return wait_until(lambda: next((each for each in stage.dead() if each.task_id == result.id), None))


def test_each_kind_of_exception_has_its_rule(stage):
    done, lost = stage.send("flaky", "done", 3), stage.send("flaky", "lost", 9)
    never, expected = stage.send("flaky", "never", 9, "ConnectionResetError"), stage.send("flaky", "exp", 9, "KeyError")
    assert done.get(timeout=15) == 3
    assert all(gap >= 0.05 for gap in gaps(stage, "done"))
    for result, kind in ((lost, ConnectionError), (never, ConnectionResetError), (expected, KeyError)):
        with pytest.raises(kind):
            result.get(timeout=15)
    assert len(stage.effects.of("attempt", "lost")) == 4
    assert len(stage.effects.of("attempt", "never")) == 1
    assert (letter_of(stage, lost).reason, letter_of(stage, lost).attempts) == ("failed", 3)
    assert letter_of(stage, never).attempts == 0
    assert expected.id not in {letter.task_id for letter in stage.dead()}


def test_a_servers_retry_after_is_honoured(stage):
    assert stage.send("flaky", "busy", 1, "Busy").get(timeout=15) == 1
    assert gaps(stage, "busy")[0] >= 0.3


@pytest.mark.parametrize("task", ["for_a_while", "celerys_for_a_while"])
def test_nothing_is_tried_again_when_the_time_is_over(stage, task):
    result = stage.send(task, task)
    with pytest.raises(OSError, match=task):
        result.get(timeout=15)
    # Every 0.2 s within 0.5 s.
    assert 2 <= len(stage.effects.of("attempt", task)) <= 3
    assert letter_of(stage, result).attempts in {1, 2}


def test_a_snooze_counts_no_attempt_and_goes_through_autoretry(stage):
    result = stage.send("sleepy", "sleepy", 3)
    assert result.get(timeout=15) == 0
    assert len(gaps(stage, "sleepy")) == 3
    assert all(gap >= 0.1 for gap in gaps(stage, "sleepy"))


def test_coroutines_are_tried_again_by_rules_and_by_celerys_options(stage):
    with stage.worker(name="two", pool="asyncio", options=["-Q", "async"]):
        by_rules = stage.send("flaky_async", "async", 2, queue="async")
        celerys = stage.send("celerys_async", "celery", 3, queue="async")
        lost = stage.send("celerys_async", "async-lost", 4, queue="async")
        never = stage.send("celerys_async", "async-never", 1, "TimeoutError", queue="async")
        assert by_rules.get(timeout=15) == 3
        assert celerys.get(timeout=15) == 4
        with pytest.raises(OSError, match="async-lost"):
            lost.get(timeout=15)
        with pytest.raises(TimeoutError):
            never.get(timeout=15)
    assert len(stage.effects.of("attempt", "async-lost")) == 4
    assert len(stage.effects.of("attempt", "async-never")) == 1
