"""The tools' programs, and one worker for them to look at."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import wait_until
from tests.servers import RedisServer, ServerMissing, die_with_parent
from tests.workers import Stage, Worker

TOOLS = Path(sys.prefix, "tools", "bin")
APP = "tests.apps.remote"
NODE = "one@test"

Launch = Callable[..., contextlib.AbstractContextManager["Tool"]]


def tool(name: str) -> str:
    """The path of a program of the environment that has the tools.

    Raises:
        ServerMissing: it is not there.
    """
    path = TOOLS / name
    if not path.exists():
        raise ServerMissing(f"no {name} in {TOOLS}; make install puts it there if the package index can be reached")
    return str(path)


class Tool:
    """A tool that runs, with a web interface on ``port`` if it has one."""

    def __init__(self, log: Path, port: int) -> None:
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> str:
        """The body of an answer; empty as long as there is none."""
        request = urllib.request.Request(self.url + path, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def output(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def running(command: list[str], log: Path, port: int = 0, **env: str) -> Iterator[Tool]:
    """A tool as a process of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*die_with_parent(), *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent,
            env={**os.environ, **env}, start_new_session=True,
        )  # fmt: skip
    try:
        yield Tool(log, port)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An app on a Redis of its own, because events go to all databases of a server."""
    with (
        RedisServer() as server,
        Stage(tmp_path_factory.mktemp("tools"), server.url, app=APP, conf={"task_send_sent_event": True}) as stage,
    ):
        yield stage


@pytest.fixture(scope="module")
def worker(stage: Stage) -> Iterator[Worker]:
    """A worker that sends events."""
    with stage.worker(options=["-E"]) as worker:
        wait_until(lambda: stage.client.control.ping(timeout=0.5, limit=1), message="the worker does not listen")
        yield worker


def command(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``celery`` of an installation without Celeriac."""
    return subprocess.run(
        [tool("celery"), "-b", stage.broker_url, "--result-backend", stage.backend_url, *words],
        capture_output=True, text=True, timeout=60, check=False, cwd=stage.directory,
    )  # fmt: skip


def outcome_of(result: Any) -> Any:
    """What a task returned, or its error."""
    try:
        return result.get(timeout=15)
    except Exception as error:
        return error
