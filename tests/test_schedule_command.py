"""``celeriac schedule`` and ``celeriac beat``, as an operator types them."""

from __future__ import annotations

import functools
import itertools
import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from celeriac.cli.main import command
from celeriac.compat.periodic import sending
from celeriac.compat.periodic.console import Console
from celeriac.compat.periodic.scheduler import StoreScheduler
from celeriac.compat.periodic.sending import TickTaken
from celeriac.compat.periodic.state import EntryState
from tests.helpers import wait_until
from tests.servers import die_with_parent
from tests.stages import STORES, each_stage
from tests.workers import children

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
    wait_until(lambda: json.loads(celeriac("beat", "--once", "--json").stdout) == {"sent": 1, "entries": 2}, 10)
    assert "--json belongs to --once" in celeriac("beat", "--json").output


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


# -- schedulers inside workers -----------------------------------------------------------------------------------------

PERIOD = 0.15
BEAT_CONF = {
    "celeriac_beat_lease": 0.6,
    "beat_schedule": {"tick": {"task": "tests.apps.survival.tick", "schedule": PERIOD, "missed": "run"}},
}


@pytest.fixture(params=STORES)
def stage(request, tmp_path):
    yield from each_stage(request, tmp_path, "tests.apps.survival", **BEAT_CONF)


@pytest.mark.timeout(180)
def test_workers_with_b_whose_leaders_are_killed_send_each_tick_once(stage):
    """Three of them serve a queue of their own, so that what is killed is schedulers, and not what they sent."""
    nodes = [stage.worker(name=f"node{n}", concurrency=1, options=["-B", "-Q", "idle"]) for n in range(3)]
    ticked = functools.partial(stage.effects.of, "ticked")
    with stage.worker(concurrency=1), ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)
            node.launch()
        for _ in range(2):
            wanted = len(ticked()) + 8
            wait_until(lambda n=wanted: len(ticked()) >= n, 60)
            leader = leader_of(stage, nodes)
            leader.signal_group(signal.SIGKILL)
            leader.wait()
            leader.launch()
        wanted = len(ticked()) + 14
        wait_until(lambda: len(ticked()) >= wanted, 60)

    counts = stage.effects.count("ticked")
    assert set(counts.values()) == {1}
    due = sorted(map(float, counts))
    assert len(due) >= 30
    assert [later - earlier for earlier, later in itertools.pairwise(due)] == pytest.approx([PERIOD] * (len(due) - 1))


def leader_of(stage, nodes):
    """The node whose scheduler leads, as ``celeriac schedule list`` names it."""

    def find():
        name = Console(StoreScheduler(stage.client)).leader()
        process = int(name.split(":")[1]) if name else 0
        return next((node for node in nodes if process in (node.pid, *children(node.pid))), None)

    return wait_until(find, 30)


@pytest.mark.parametrize("stage", ["rabbitmq"], indirect=True)
def test_a_tick_that_a_killed_scheduler_may_have_sent_is_sent_again_and_runs_once(stage, monkeypatch):
    monkeypatch.setattr(sending, "SENDING_SECONDS", 2.0)
    cut_short, other = StoreScheduler(stage.client), StoreScheduler(stage.client)
    state, now = EntryState(last=1000.0), 1000.0 + PERIOD
    entry = other.schedule["tick"]

    with monkeypatch.context() as patch:
        patch.setattr(cut_short.store, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            cut_short.sender.send(entry, state, now)
    with pytest.raises(TickTaken):
        other.sender.send(entry, state, now)
    wait_until(lambda: stage.broker.depth(["celery"])[0].ready == 1, 10)
    task_id = wait_until(lambda: sent_again(other, entry, state, now), 10)
    assert other.sender.send(entry, state, now) is None
    wait_until(lambda: stage.broker.depth(["celery"])[0].ready == 2, 10)

    with stage.worker(concurrency=2) as worker:
        stage.wait_until_drained()
        assert "its tick was sent twice" in worker.log()
        assert len(stage.effects.of("ticked")) == 1
        assert stage.client.AsyncResult(task_id).get(timeout=10) is None


def killed(*_):
    raise KeyboardInterrupt


def sent_again(scheduler, entry, state, now):
    try:
        return scheduler.sender.send(entry, state, now)
    except TickTaken:
        return None
