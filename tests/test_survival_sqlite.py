"""An SQLite file that is locked by somebody else, or has no room left."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing, suppress

import pytest
from kombu.exceptions import OperationalError

from tests.workers import Stage


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path, conf={"broker_transport_options": {"timeout": 0.5}}) as stage:
        yield stage


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield small
    subprocess.run(["umount", "--lazy", str(small)], check=True)


def fill_up(ballast):
    """Take all the room there is."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_worker_waits_for_a_file_that_is_locked_for_seconds_and_goes_on(stage):
    path = stage.directory / "store.sqlite3"
    with stage.worker():
        held = stage.send("hold_late", "held", "gate")
        stage.wait_for("started", "held")
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            stage.effects.open_gate("gate")
            stage.wait_for("ran", "held")
            started = time.monotonic()
            with pytest.raises(OperationalError, match="locked"):
                stage.send("note_late", "refused", retry=False)
            assert time.monotonic() - started < 2
            intruder.execute("ROLLBACK")
        assert held.get(timeout=10) == "held"
        assert stage.send("note_late", "after").get(timeout=10) == "after"
        stage.wait_until_drained()
        assert stage.effects.count("ran") == {"held": 1, "after": 1}
        assert stage.dead() == []


def test_a_full_disk_is_told_to_the_producer_and_waited_out_by_the_worker(tmp_path, small_disk):
    with Stage(tmp_path, f"sqlite:///{small_disk}/store.sqlite3") as stage, stage.worker():
        held = stage.send("hold_late", "held", "gate")
        stage.wait_for("started", "held")
        ballast = small_disk / "ballast"
        fill_up(ballast)
        with pytest.raises(OperationalError, match="no room left"):
            stage.send("note_late", "x" * 200_000)
        stage.effects.open_gate("gate")
        stage.wait_for("ran", "held")
        ballast.unlink()
        assert held.get(timeout=10) == "held"
        assert stage.send("note_late", "after").get(timeout=10) == "after"
        assert stage.effects.count("ran") == {"held": 1, "after": 1}
        assert stage.dead() == []
