"""``celeriac schedule`` and ``celeriac beat``, as an operator types them."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from celeriac.cli.main import command
from tests.helpers import wait_until
from tests.servers import die_with_parent
from tests.workers import Stage

APP = """
from celery.schedules import crontab
from celeriac import Celery

app = Celery("shop", broker="sqlite:///store.sqlite3", backend="sqlite:///store.sqlite3")
app.conf.update(
    timezone="UTC",
    celeriac_beat_lease=0.5,
    beat_schedule={
        "hourly report": {"task": "report", "schedule": crontab(minute=0), "args": ("eu",)},
        "quick": {"task": "report", "schedule": 0.2},
    },
)

@app.task(name="report", shared=False)
def report(*args):
    pass
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "shop_periodic.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("shop_periodic", None)


def celeriac(*words: str):
    return CliRunner().invoke(command(), ["-A", "shop_periodic", *words], auto_envvar_prefix="CELERY")


def listed(name: str) -> dict:
    entries = json.loads(celeriac("schedule", "list", "--json").stdout)["entries"]
    return next(entry for entry in entries if entry["name"] == name)


def test_an_operator_sees_pauses_runs_and_edits(project):
    table = celeriac("schedule", "list").output
    assert "hourly report" in table
    assert "0 * * * *" in table
    assert "No scheduler runs: start `celeriac beat` or a worker with -B." in table

    assert "paused" in celeriac("schedule", "pause", "hourly report").output
    assert listed("hourly report")["paused"]
    assert listed("hourly report")["next"] is None
    assert "resumed" in celeriac("schedule", "resume", "hourly report").output
    assert listed("hourly report")["next"] is not None

    sent = json.loads(celeriac("schedule", "run", "hourly report", "--json").stdout)
    assert len(sent["task_ids"]["hourly report"]) == 36

    edited = celeriac("schedule", "edit", "hourly report", "--cron", "*/5 8-18 * * mon-fri", "--args", '["us"]')
    assert '*/5 8-18 * * mon-fri, task report, arguments [["us"], {}]' in edited.output
    assert listed("hourly report")["origin"] == "edited"
    assert "0 * * * *" in celeriac("schedule", "edit", "hourly report", "--reset").output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pause", "hourly reprot"), "The schedule has no 'hourly reprot'. Did you mean 'hourly report'?"),
        (("edit", "quick", "--every", "1", "--cron", "* * * * *"), "Give --every or --cron, not both."),
        (("edit", "quick"), "Nothing to change"),
        (("edit", "quick", "--every", "soon"), "'soon' is no schedule"),
        (("edit", "quick", "--args", "{}"), "write for example '[1, 2]'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(project, words, text):
    result = celeriac("schedule", *words)

    assert result.exit_code != 0
    assert text in result.output
    assert "Traceback" not in result.output


def test_a_cron_job_sends_what_is_due_and_ends(project):
    assert "0 of 2 periodic tasks were due" in celeriac("beat", "--once").output

    wait_until(lambda: "1 of 2 periodic tasks were due" in celeriac("beat", "--once").output, 5)

    assert listed("quick")["sent"] == 1


def test_beat_runs_leads_and_leaves_in_order(project):
    command_line = [sys.executable, "-m", "celeriac.cli.main", "-A", "shop_periodic", "beat", "-l", "info"]
    log = project / "beat.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*die_with_parent(), *command_line], stdout=out, stderr=subprocess.STDOUT, cwd=project
        )
    try:
        wait_until(lambda: "Sending due task quick" in log.read_text(), 20, log.read_text)
        assert "this scheduler leads now" in log.read_text()
        assert "safe to run many" in log.read_text()
        assert f":{process.pid}:" in celeriac("schedule", "list").output
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert "No scheduler runs" in celeriac("schedule", "list").output
    assert not Path("celerybeat-schedule.db").exists()


def test_an_app_with_a_scheduler_of_its_own_is_told_so(project):
    (project / "shop_periodic.py").write_text(APP + '\napp.conf.beat_scheduler = "celery.beat:Scheduler"\n')

    result = celeriac("schedule", "list")

    assert "kept by celery.beat:Scheduler (beat_scheduler), which has commands or pages of its own" in result.output


def test_without_a_store_for_it_celerys_scheduler_runs_and_the_commands_say_why(project):
    text = APP.replace("sqlite:///store.sqlite3", "memory://", 1).replace(
        "sqlite:///store.sqlite3", "cache+memory://", 1
    )
    (project / "shop_periodic.py").write_text(text)

    result = celeriac("schedule", "list")

    assert result.exit_code == 1
    assert "neither the broker nor the result store is one: set celeriac_state_url" in result.output


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_two_workers_with_b_send_each_tick_once(request, tmp_path, broker):
    url = request.getfixturevalue("redis_url") if broker == "redis" else None
    conf = {
        "celeriac_beat_lease": 0.5,
        "beat_schedule": {"note": {"task": "tests.apps.survival.note", "schedule": 0.25, "args": ("tick",)}},
    }
    with Stage(tmp_path, url, conf=conf) as stage:
        first, second = (stage.worker(name=name, concurrency=1, options=["-B"]) for name in ("one", "two"))
        with first, second:
            stage.wait_for("ran", "tick", 4, timeout=30)
            leader = next(each for each in (first, second) if "leads now" in each.log())
            leader.signal_group(signal.SIGKILL)
            ran = len(stage.effects.of("ran", "tick"))
            stage.wait_for("ran", "tick", ran + 3, timeout=30)
        times = [effect.at for effect in stage.effects.of("ran", "tick")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) > 0.05, "two schedulers would send twice as often"
