"""What runs in place of a container: a Redis, a RabbitMQ, or a worker."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import wait_until
from tests.server_rabbitmq import RabbitServer
from tests.servers import RedisServer, die_with_parent
from tests.workers import ROOT

PROGRAM = Path(sys.executable).with_name("celery" if os.environ.get("WORKER") == "stock" else "celeriac")
"""Stands for ``celery`` in every command line."""


class Server:
    """One of the servers that our own tests start."""

    def __init__(self, server: RedisServer | RabbitServer) -> None:
        self._server = server

    def start(self, _id: str) -> None:
        """Start it and wait until it answers."""
        self._server.start()

    @property
    def port(self) -> int:
        """Where it listens, on this machine."""
        return self._server.port

    @property
    def code(self) -> int | None:
        """How it ended; ``None`` while it runs."""
        return None if self._server.pid else 0

    def log(self) -> str:
        """All that it has said."""
        return self._server._log()  # noqa: SLF001 - our own

    def kill(self, number: int) -> None:
        """End it."""
        (self._server.kill if number == signal.SIGKILL else self._server.stop)()

    def restart(self, _seconds: float) -> None:
        """End it in order and start it again."""
        self._server.restart()

    def run(self, command: str | Sequence[str]) -> tuple[int, bytes]:
        """Run a command where it runs, as far as there is a counterpart."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if words[0] == "redis-cli" and isinstance(self._server, RedisServer):
            return 0, str(self._server.client().execute_command(*words[1:])).encode()
        if words[:2] == ["rabbitmqctl", "close_all_connections"] and isinstance(self._server, RabbitServer):
            self._server.close_connections()
            return 0, b""
        pytest.skip(f"no {words[0]} on this server")

    def end(self) -> None:
        """End it for good."""
        self._server.close()


class Worker:
    """A worker in a directory that the suite has filled.

    Args:
        directory: of its app.
        log: file for what it says.
        environment: more of its environment.
        command: its command line, with ``%h`` for the name of the host.
    """

    port = 0

    def __init__(self, directory: Path, log: Path, environment: Mapping[str, Any], command: Sequence[str]) -> None:
        self._directory = directory
        self._log = log
        self._environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        host, _, port = self._environment.get("REDIS_HOST", "").partition(":")
        if port:  # a container has an address of its own where we have a port
            self._environment.update(REDIS_HOST=host, REDIS_PORT=port)
        self._environment["PYTHONPATH"] = os.pathsep.join((str(directory), str(Path.cwd()), str(ROOT)))
        self._command = [str(word) for word in command]
        self._process: subprocess.Popen[bytes] | None = None
        self._host = ""

    def start(self, id: str) -> None:
        """Start it and wait until it takes work."""
        self._host = id[:12]
        self._spawn()
        wait_until(self._is_ready, 60, lambda: f"the worker did not start:\n{self.log()}")

    def _is_ready(self) -> bool:
        if self.code is not None:
            raise RuntimeError(f"the worker ended with {self.code}:\n{self.log()}")
        return "ready." in self.log()

    def _spawn(self) -> None:
        words = [word.replace("%h", self._host) for word in self._command]
        if words[0] == "celery":
            words[0] = str(PROGRAM)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_parent(), *words], stdout=log, stderr=log, cwd=self._directory, env=self._environment,
                start_new_session=True,
            )  # fmt: skip

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The worker's parent process."""
        assert self._process is not None
        return self._process

    @property
    def code(self) -> int | None:
        """Its exit code; ``None`` while it runs."""
        return self.process.poll()

    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kill(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(10)

    def restart(self, seconds: float) -> None:
        """End it in order, or after ``seconds`` without, and start it again."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGKILL)
        self.end()
        self._spawn()

    def run(self, command: str | Sequence[str]) -> tuple[int, bytes]:
        """Run a command where it runs."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        words[0] = sys.executable if words[0] == "python" else words[0]
        ran = subprocess.run(
            words, capture_output=True, cwd=self._directory, env=self._environment, timeout=60, check=False
        )
        return ran.returncode, ran.stdout

    def end(self) -> None:
        """End it, and the processes that it has left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
