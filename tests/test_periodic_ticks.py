"""When periodic tasks are due: the arithmetic, with the clock as an argument."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import BaseSchedule, crontab, schedstate, schedule, solar
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import Celery
from celeriac.compat.periodic.ticks import MOST_AT_ONCE, Missed, Ticks

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0
DAY = 86_400.0


def at(text: str, zone: timezone | ZoneInfo = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def app_in(zone: str) -> Celery:
    return Celery("periodic", broker="memory://", set_as_current=False, changes={"timezone": zone})


def ticks_between(ticks: Ticks, first: float, end: float, step: float) -> list[float]:
    """All ticks that a scheduler sends which looks every ``step`` seconds."""
    last, now, sent = first, first, []
    while now < end:
        now += step
        due = ticks.due(last, now)
        sent += due.ticks
        last = due.last
    return sent


moments = st.integers(int(at("2024-01-01")), int(at("2027-01-01"))).map(float)


def whole(first: float, last: float) -> st.SearchStrategy[float]:
    return st.integers(math.ceil(first), int(last)).map(float)


@given(moments, whole(1, DAY), whole(0, 100 * DAY))
def test_an_interval_ticks_in_step_however_late_it_is_looked_at(last, period, late):
    due = Ticks(schedule(period, app=app_in("UTC")), UTC, missed=Missed.MERGE).due(last, last + late)

    elapsed = late // period
    assert len(due.ticks) == (1 if elapsed else 0)
    assert due.last == last + elapsed * period
    assert 0 <= due.wait <= period


@given(moments, whole(1, HOUR), st.lists(whole(1, 3 * HOUR), min_size=1, max_size=8))
def test_every_missed_tick_runs_once_however_often_it_is_looked_at(last, period, pauses):
    ticks = Ticks(schedule(period, app=app_in("UTC")), UTC, missed=Missed.RUN)
    start, now, sent = last, last, []
    for pause in pauses:
        now += pause
        for _ in range(math.ceil(3 * HOUR / period / MOST_AT_ONCE) + 1):
            due = ticks.due(last, now)
            sent += due.ticks
            last = due.last

    assert len(sent) == len(set(sent))
    assert len(sent) == (now - start) // period
    assert sent == sorted(sent)


@given(moments, whole(0, 5 * DAY))
def test_a_merged_crontab_is_sent_once_and_goes_on_behind_now(last, late):
    ticks = Ticks(crontab(minute="*/7", app=app_in("UTC")), UTC, missed=Missed.MERGE)

    due = ticks.due(last, last + late)

    assert len(due.ticks) <= 1
    assert ticks.due(due.last, last + late).ticks == []


def test_what_was_missed_is_skipped_but_for_what_is_hardly_late():
    ticks = Ticks(crontab(minute=0, app=app_in("UTC")), UTC, missed=Missed.SKIP, grace=60)

    assert ticks.due(at("2026-05-01T10:00"), at("2026-05-01T14:00:30")).ticks == [at("2026-05-01T14:00")]
    late = ticks.due(at("2026-05-01T10:00"), at("2026-05-01T14:30"))
    assert late.ticks == []
    assert late.last == at("2026-05-01T14:00")
    assert late.wait == 30 * 60


def test_a_crontab_has_celerys_starting_deadline():
    ticks = Ticks(crontab(minute=0, hour=3, app=app_in("UTC")), UTC, deadline=HOUR)

    assert ticks.due(at("2026-05-01T03:00"), at("2026-05-02T03:59")).ticks == [at("2026-05-02T03:00")]
    assert ticks.due(at("2026-05-01T03:00"), at("2026-05-02T04:01")).ticks == []


@pytest.mark.parametrize(
    ("day", "local", "expected"),
    [
        ("2026-03-28", "02:30", ["2026-03-28T02:30", "2026-03-30T02:30"]),
        ("2026-10-24", "02:30", ["2026-10-24T02:30", "2026-10-25T02:30", "2026-10-26T02:30"]),
        ("2026-03-28", "04:00", ["2026-03-28T04:00", "2026-03-29T04:00", "2026-03-30T04:00"]),
    ],
)
def test_a_daily_crontab_ticks_at_its_local_time_once_a_day_over_a_change_of_the_clock(day, local, expected):
    """On 29 March 2026 there is no 02:30 in Berlin, and on 25 October there are two."""
    hour, minute = map(int, local.split(":"))
    ticks = Ticks(crontab(hour=hour, minute=minute, app=app_in("Europe/Berlin")), BERLIN, missed=Missed.RUN)
    start = at(f"{day}T00:00", BERLIN)

    sent = ticks_between(ticks, start, start + 3 * DAY, 600)

    texts = [datetime.fromtimestamp(tick, BERLIN).strftime("%Y-%m-%dT%H:%M") for tick in sent]
    kept = [text for text in texts if not (text.startswith("2026-03-29") and local == "02:30")]
    assert kept == expected
    assert len(texts) - len(kept) <= 1, "where the time does not exist, at most once"


def test_an_hourly_crontab_ticks_every_hour_that_passes_over_a_change_of_the_clock():
    ticks = Ticks(crontab(minute=0, app=app_in("Europe/Berlin")), BERLIN, missed=Missed.RUN)
    for start, hours in ((at("2026-03-29T00:30", BERLIN), 23), (at("2026-10-25T00:30", BERLIN), 25)):
        sent = ticks_between(ticks, start, start + hours * HOUR, 300)
        assert len(sent) == len(set(sent))
        assert len(sent) in (hours, hours - 1), "Celery's crontab names the repeated hour once"


def test_a_clock_set_back_an_hour_sends_nothing_twice_and_stops_no_interval():
    cron = Ticks(crontab(minute="*/10", app=app_in("UTC")), UTC, missed=Missed.RUN)
    noon = at("2026-05-01T12:00")

    assert cron.due(noon, noon - HOUR).ticks == []
    assert cron.due(noon, noon + 599).ticks == []
    assert cron.due(noon, noon + 600).ticks == [noon + 600]

    every_ten = Ticks(schedule(10, app=app_in("UTC")), UTC, missed=Missed.RUN)
    back = every_ten.due(noon, noon - HOUR)
    assert back.ticks == []
    assert every_ten.due(back.last, noon - HOUR + 10).ticks == [noon - HOUR + 10]


def test_a_schedule_of_no_length_is_sent_at_each_look():
    ticks = Ticks(schedule(0, app=app_in("UTC")), UTC)

    assert len(ticks.due(100.0, 105.0).ticks) == 1


def test_sunset_is_where_the_sun_sets():
    app = app_in("UTC")
    ticks = Ticks(solar("sunset", 52.5, 13.4, app=app), UTC, missed=Missed.RUN)
    start = at("2026-06-21T12:00")

    sent = ticks_between(ticks, start, start + 3 * DAY, 600)

    assert len(sent) == 3
    assert all(19 <= datetime.fromtimestamp(tick, UTC).hour <= 20 for tick in sent)


class EveryOtherAsk(BaseSchedule):
    """A custom schedule that only says whether it is due."""

    asked = 0

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        type(self).asked += 1
        return schedstate(self.asked % 2 == 0, 5.0)


def test_a_custom_schedule_is_asked():
    ticks = Ticks(EveryOtherAsk(app=app_in("UTC")), UTC)

    assert ticks.due(100.0, 200.0).ticks == []
    due = ticks.due(100.0, 210.0)
    assert (due.ticks, due.last, due.wait) == ([210.0], 210.0, 5.0)


@settings(max_examples=60)
@given(
    last=moments,
    minute=st.sampled_from(["*", "*/15", "7", "0,30"]),
    hour=st.sampled_from(["*", "*/6", "2", "3-5"]),
    weekday=st.sampled_from(["*", "mon-fri", "sun"]),
    day=st.sampled_from(["*", "1", "31"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    later=st.integers(1, 400),
)
def test_it_is_due_when_celery_says_so(*, last, minute, hour, weekday, day, zone, later):
    """Celery is the oracle: asked at the same moment about the same last run, it gives the same answer."""
    app, now = app_in(zone), last + later * 613
    plan = crontab(minute=minute, hour=hour, day_of_week=weekday, day_of_month=day, app=app)
    local = ZoneInfo(zone)
    oracle = crontab(
        minute=minute, hour=hour, day_of_week=weekday, day_of_month=day, app=app,
        nowfun=lambda: datetime.fromtimestamp(now, local),
    )  # fmt: skip

    due = Ticks(plan, local).due(last, now)

    assert bool(due.ticks) == oracle.is_due(datetime.fromtimestamp(last, local)).is_due


def test_the_clock_of_a_relative_interval_is_rounded():
    plan = schedule(timedelta(hours=1), relative=True, app=app_in("UTC"))

    due = Ticks(plan, UTC, missed=Missed.RUN).due(at("2026-05-01T10:20"), at("2026-05-01T12:10"))

    assert due.ticks == [at("2026-05-01T11:00"), at("2026-05-01T12:00")]
