"""Workers in the background: ``--detach``, its options, and ``celeriac multi``."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.workers import ROOT, Stage, children, is_alive

APP = "tests.apps.surface"


@pytest.fixture
def stage(tmp_path):
    tmp_path.chmod(0o777)
    with Stage(tmp_path, app=APP) as stage:
        yield stage


def run(stage, *words):
    """A command in front; its exit code and what it printed."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER": stage.broker_url, "TEST_BACKEND": stage.backend_url,
        "TEST_EFFECTS": str(stage.effects.path),
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-m", "celeriac", "-A", APP, *words],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=stage.directory,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def pid_of(path):
    return int(path.read_text()) if path.exists() and path.read_text().strip() else None


@contextmanager
def ended(*pidfiles):
    """Leave nothing behind."""
    try:
        yield
    finally:
        for path in pidfiles:
            pid = pid_of(path)
            if pid is not None and is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def status(pid, field):
    """A line of the process's status in the kernel."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


def test_a_detached_worker_is_a_daemon_in_full(stage, tmp_path):
    pidfile, elsewhere = tmp_path / "d.pid", tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["--workdir", str(elsewhere), "worker", "-n", "d@test", "-c", "1", "-l", "INFO", "--detach", "--umask=027"]
    words += ["--pidfile", f"{tmp_path}/%n.pid", "--logfile", f"{tmp_path}/%n%I.log", f"--executable={sys.executable}"]
    with ended(pidfile):
        assert run(stage, *words) == (0, "")
        pid = wait_until(lambda: pid_of(pidfile), 20)
        assert stage.send("note", "x").get(timeout=10) == "x"

        assert os.getsid(pid) != os.getsid(0)
        assert Path(f"/proc/{pid}/cwd").resolve() == elsewhere
        assert status(pid, "Umask") == ["0027"]
        assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)} == {"/dev/null"}
        wait_until(lambda: "d@test ready." in (tmp_path / "d.log").read_text(), 10)
        wait_until(lambda: f"Task {APP}.note" in (tmp_path / "d-1.log").read_text(), 10)

        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), 15)
        assert not pidfile.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("which", ["group", "user"])
def test_a_worker_gives_its_privileges_up(tmp_path, redis_url, which):
    nobody = pwd.getpwnam("nobody")
    closed = [path for path in Path(sys.base_prefix).parents if not path.stat().st_mode & 0o001]
    if which == "user" and closed:
        pytest.skip(f"the user nobody cannot read this Python: {closed[0]} is closed")
    options = [f"--gid={nobody.pw_gid}"] if which == "group" else ["--uid=nobody"]
    with Stage(tmp_path, redis_url, app=APP) as stage, stage.worker(concurrency=1, options=options) as worker:
        assert stage.send("show", 1).get(timeout=10)[0] == "1"
        for pid in (worker.pid, *children(worker.pid), *worker.slots()):
            assert status(pid, "Gid") == [str(nobody.pw_gid)] * 4
            assert status(pid, "Uid") == [str(nobody.pw_uid if which == "user" else 0)] * 4


def test_multi_starts_restarts_and_stops_our_workers(stage, tmp_path):
    files = [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log"]
    pidfile = tmp_path / "w1.pid"
    code, said = run(stage, "multi", "show", "w1", "w2", "-c", "1", "-c:w2", "2", *files)
    assert (code, said.count("-m celeriac -A tests.apps.surface worker --detach")) == (0, 2)
    assert "-c 2" in said
    with ended(pidfile):
        code, said = run(stage, "multi", "start", "w1", "-c", "1", *files)
        assert (code, "OK" in said) == (0, True)
        pid = wait_until(lambda: pid_of(pidfile), 20)
        wait_until(lambda: stage.client.control.ping(timeout=0.5, limit=1), 20)
        assert "celeriac" in Path(f"/proc/{pid}/cmdline").read_text()

        assert run(stage, "multi", "restart", "w1", "-c", "1", *files)[0] == 0
        again = wait_until(lambda: pid_of(pidfile) if pid_of(pidfile) != pid else None, 20)
        wait_until(lambda: stage.client.control.ping(timeout=0.5, limit=1), 20)
        assert not is_alive(pid)
        assert run(stage, "multi", "stopwait", "w1", *files)[0] == 0
        wait_until(lambda: not is_alive(again))
    assert not pidfile.exists()
