"""The arithmetic of limits, with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.broker import Lane
from celeriac.errors import ConfigurationError
from celeriac.policies.dealing import Dealing, Taker
from celeriac.policies.lane import Claim, name_of
from celeriac.policies.limit import Limit, Rate, allowance, parse_rate
from celeriac.policies.limit_state import (
    LimitState,
    as_dict,
    decode,
    free,
    from_dict,
    grant_rate,
    guard,
    hold,
    is_free,
    settled,
    take_back,
    units_held,
    wait_for_rate,
    without,
)

EPOCH = 1_800_000_000.0

rates = st.builds(Rate, st.integers(1, 400), st.sampled_from([0.5, 1.0, 7.0, 60.0, 3600.0]))


def greedy(allowed, seconds, late=lambda: 0.0, state=None, start=EPOCH):
    """Grants of somebody who takes each as soon as it is allowed, or a little later."""
    state, now, granted = state or LimitState(), start, []
    while now < start + seconds:
        state = settled(state, allowed, now)
        wait = wait_for_rate(state, allowed, 1, now)
        if wait > 0:
            now += wait + late()
            continue
        state = decode(grant_rate(state, allowed, 1, now).encode())
        granted.append(now)
    return granted


def most_in_a_window(times, length):
    """The largest number of times in any half-open window."""
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - length:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(rates, st.data())
@settings(max_examples=25, deadline=None)
def test_no_window_has_more_starts_than_the_limit_however_late_they_are(rate, data):
    burst = data.draw(st.none() | st.integers(1, rate.count))
    allowed = allowance(rate, burst)
    lateness = iter(data.draw(st.lists(st.floats(0, guard(rate)), min_size=1, max_size=50)) * 200)
    granted = greedy(
        allowed, min(4 * rate.period, 600 * rate.period / rate.count + rate.period), late=lambda: next(lateness, 0.0)
    )
    delays = data.draw(st.lists(st.floats(0, guard(rate)), min_size=1, max_size=40))
    starts = sorted(at + delays[n % len(delays)] for n, at in enumerate(granted))

    assert most_in_a_window(starts, rate.period) <= rate.count


@given(rates)
@settings(max_examples=25, deadline=None)
def test_what_is_allowed_is_used_in_the_long_run(rate):
    allowed = allowance(rate)
    periods = max(2.0, min(20.0, 400 / rate.count))
    granted = greedy(allowed, periods * rate.period)

    share = rate.period / (rate.period + guard(rate))
    assert len(granted) >= 0.99 * share * rate.count * periods - 1


def test_who_asks_a_little_late_each_time_loses_nothing():
    assert len(greedy(allowance("100/s"), 60, late=lambda: 0.02)) >= 0.965 * 6000


def test_starts_are_spread_and_a_burst_is_what_was_asked_for():
    assert len([at for at in greedy(allowance("60/m"), 60) if at < EPOCH + 10]) <= 22
    assert len(list(greedy(allowance("60/m", burst=60), 1))) == 60
    assert len(list(greedy(allowance("100/s"), 0.001))) == 20


def test_a_large_rate_keeps_a_small_state():
    allowed, state = allowance("100000/h", burst=1000), LimitState()
    now = EPOCH
    for _ in range(5000):
        state = settled(state, allowed, now)
        wait = wait_for_rate(state, allowed, 1, now)
        now += wait
        state = grant_rate(settled(state, allowed, now), allowed, 1, now)
    assert len(state.encode()) < 8000


@given(st.integers(1, 30), st.lists(st.integers(1, 40), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_weights_add_up_to_no_more_than_the_limit(count, weights):
    allowed, state, now = allowance(Rate(count, 1.0), count), LimitState(), EPOCH
    granted = []
    for weight in weights:
        while True:
            state = settled(state, allowed, now)
            wait = wait_for_rate(state, allowed, weight, now)
            if wait == 0:
                break
            now += wait
        state = grant_rate(state, allowed, weight, now)
        granted.append((now, min(weight, count)))
    for end, _ in granted:
        assert sum(units for at, units in granted if end - 1.0 < at <= end) <= count


def look(states, now, lanes, allowed, room=100):
    """One slot's look, and the states that it writes."""
    dealing = Dealing(now, states, lambda _name: allowed, Taker("me", lambda: "p", sequential=True))
    deals = dealing.deal(lanes, room)
    return {**states, **{name: dealing.states[name] for name in dealing.changed}}, sum(deal.count for deal in deals)


@pytest.mark.parametrize("step", [-3600.0, -5.0, 0.0])
def test_a_clock_that_is_set_back_an_hour_delays_by_a_period_at_most_and_grants_nothing_twice(step):
    allowed, lanes = allowance("10/s", burst=10), [Lane("q", name_of([Claim("l", "", 1)]), 1000)]
    states, first = look({}, EPOCH, lanes, allowed)
    assert first == 10

    started, states_now = [], states
    for tick in range(300):
        now = EPOCH + step + tick * 0.01
        states_now, count = look(states_now, now, lanes, allowed)
        started += [now] * count

    assert 0.9 < started[0] - (EPOCH + step) < 1.2
    assert most_in_a_window(started, 1.0) <= 10
    assert len(started) >= 15


def test_a_limit_that_is_changed_has_its_effect_within_seconds():
    lanes = [Lane("q", name_of([Claim("l", "", 1)]), 1000)]
    states, _ = look({}, EPOCH, lanes, allowance("1/h"))
    counts = []
    for tick in range(40):
        states, count = look(states, EPOCH + 10 + tick * 0.1, lanes, allowance("100/s", burst=100))
        counts.append(count)
    assert sum(counts) > 100


def test_a_limit_that_is_raised_a_hundredfold_lets_the_next_one_start_at_once():
    state = grant_rate(LimitState(), allowance("6/m"), 1, EPOCH)
    raised = allowance("600/m")
    state = settled(state, raised, EPOCH + 1)

    assert wait_for_rate(state, raised, 1, EPOCH + 1) == 0
    assert len(greedy(raised, 30, state=state, start=EPOCH + 1)) == pytest.approx(300, rel=0.05)


def test_a_clock_that_jumps_ahead_forgets_what_was_granted():
    allowed = allowance("1/h")
    state = grant_rate(LimitState(), allowed, 1, EPOCH)
    assert wait_for_rate(settled(state, allowed, EPOCH + 7200), allowed, 1, EPOCH + 7200) == 0


@given(st.integers(1, 50), st.integers(1, 60))
def test_a_grant_that_was_not_used_can_be_taken_back(count, weight):
    allowed = allowance(Rate(count, 1.0), count)
    state = grant_rate(LimitState(next_at=EPOCH), allowed, weight, EPOCH)

    back = take_back(state, allowed, weight, EPOCH)

    assert back.grants == ()
    assert back.next_at == pytest.approx(EPOCH)
    assert take_back(back, allowed, weight, EPOCH) == back


@given(
    st.integers(1, 10), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 4), st.booleans()))
)
def test_no_more_is_held_than_allowed_and_asking_twice_changes_nothing(most, steps):
    allowed, state = allowance(concurrency=most), LimitState()
    for owner, permit, weight, take in steps:
        if take and (str(permit) in state.held.get(owner, {}) or is_free(state, allowed, weight)):
            if str(permit) not in state.held.get(owner, {}):
                state = hold(state, allowed, owner, str(permit), weight)
        elif not take:
            state = free(state, owner, {str(permit)})
            assert free(state, owner, {str(permit)}) == state
        assert units_held(state) <= most
        assert decode(state.encode()) == state
    assert units_held(without(state, "abc")) == 0


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("100/s", Rate(100, 1)),
        (" 5 / m ", Rate(5, 60)),
        ("7/30s", Rate(7, 30)),
        (10, Rate(10, 1)),
        (0.5, Rate(1, 2)),
        ("1/d", Rate(1, 86400)),
        ("10", Rate(10, 1)),
        ("0.5/m", Rate(1, 120)),
    ],
)
def test_rates_are_written_as_celery_writes_them_and_with_a_number_before_the_unit(given, rate):
    assert parse_rate(given) == rate
    assert parse_rate(str(rate)) == rate
    assert from_dict(as_dict(allowance(rate))) == allowance(rate)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": "often"}, "'often' is not a rate; write for example '100/s'"),
        ({"rate": "0/s"}, "is not a rate"),
        ({"rate": True}, "is not a rate"),
        ({}, "a rate .* a concurrency, or both"),
        ({"concurrency": 0}, "whole number above 0, not 0"),
        ({"concurrency": 2, "burst": 1}, "A burst is part of a rate, and this limit has none"),
        ({"rate": "5/s", "burst": 6}, "from 1 to 5, not 6"),
        ({"rate": "5/s", "weight": 6}, "A weight of 6 never fits into a limit of 5/s"),
        ({"concurrency": 3, "weight": 0}, "never fits"),
        ({"concurrency": 3, "weight": [1]}, "A weight is a number, a template"),
    ],
)
def test_what_contradicts_itself_is_refused_when_it_is_declared(options, text):
    with pytest.raises(ConfigurationError, match=text):
        Limit(**options)
