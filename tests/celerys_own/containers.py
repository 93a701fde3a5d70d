"""As much of ``pytest_docker_tools`` as Celery's smoke tests use, with processes in place of containers."""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.celerys_own.processes import Server, Worker
from tests.server_rabbitmq import RabbitServer
from tests.servers import RedisServer

_numbers = itertools.count(1)


class TimeoutError(Exception):
    """What was waited for did not come."""


def wait_for_callable(message: str, func: Callable[[], Any], timeout: float = 30) -> None:
    """Wait until ``func()`` is true."""
    deadline = time.monotonic() + timeout
    while not func():
        if time.monotonic() > deadline:
            raise TimeoutError(message)
        time.sleep(0.05)


class _Ports(dict[str, Any]):
    """Ports of a container beside its main one: there are none."""

    def __missing__(self, port: str) -> Any:
        pytest.skip(f"nothing listens here in place of port {port} of the container")


class Container:
    """A process that is used like a container."""

    def __init__(self, process: Server | Worker) -> None:
        self._process = process
        self.id = f"{os.getpid():06x}{next(_numbers):06x}"
        self.name = f"container-{self.id}"
        process.start(self.id)

    @property
    def attrs(self) -> dict[str, Any]:
        """What Docker would tell."""
        host = f"localhost:{self._process.port}" if self._process.port else self.id[:12]
        return {
            "Config": {"Hostname": host}, "State": {"ExitCode": self._process.code}, "NetworkSettings": {"Ports": _Ports()},
        }  # fmt: skip

    @property
    def status(self) -> str:
        """Docker's word for it."""
        return "running" if self._process.code is None else "exited"

    def reload(self) -> None:
        """Nothing: it is always up to date."""

    def ready(self) -> bool:
        """Whether it was started."""
        return True

    def logs(self) -> str:
        """All that it has said."""
        return self._process.log()

    def get_addr(self, _port: str) -> tuple[str, int]:
        """Where to reach it."""
        return "localhost", self._process.port

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send it a signal, and take as long as Docker does: signals that come together are one."""
        self._process.kill(_number(signal))
        time.sleep(0.2)

    def restart(self, timeout: float = 10) -> None:
        """End it and start it again."""
        self._process.restart(timeout)

    def exec_run(self, command: Any, **_options: Any) -> tuple[int, bytes]:
        """Run a command where it runs."""
        return self._process.run(command)


def _number(name: str | int) -> int:
    return signal.Signals[name] if isinstance(name, str) else name


class fxtr:  # noqa: N801 - its name there
    """Stands for what a fixture returns."""

    def __init__(self, name: str) -> None:
        self.name = name


def _resolved(request: pytest.FixtureRequest, value: Any) -> Any:
    return request.getfixturevalue(value.name) if isinstance(value, fxtr) else value


def _nothing(**_options: Any) -> Any:
    @pytest.fixture(scope="session")
    def thing() -> SimpleNamespace:
        return SimpleNamespace(id="nothing", name="nothing")

    return thing


build = fetch = network = _nothing


def volume(initial_content: Any = None, **_options: Any) -> Any:
    """A fixture: a directory with files in it."""

    @pytest.fixture
    def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
        path = tmp_path_factory.mktemp("volume")
        for name, content in (_resolved(request, initial_content) or {}).items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return SimpleNamespace(name=str(path), path=path)

    return directory


def container(
    *, wrapper_class: Any, command: Any = None, environment: Any = None, volumes: Any = None, **_: Any
) -> Any:
    """A fixture: a process of the kind that the class is for."""

    @pytest.fixture
    def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        process: Server | Worker
        if "Redis" in wrapper_class.__name__:
            process = Server(RedisServer())
        elif "RabbitMQ" in wrapper_class.__name__:
            process = Server(RabbitServer())
        elif "Worker" in wrapper_class.__name__:
            words = _resolved(request, command) or wrapper_class.command()
            log = tmp_path_factory.mktemp("worker") / "log"
            process = Worker(_directory(request, volumes), log, _resolved(request, environment) or {}, words)
        else:
            pytest.skip(f"nothing stands in for {wrapper_class.__name__}")
        made = None
        try:
            made = wrapper_class(process)
            yield made
        finally:
            if made is not None and isinstance(process, Worker):
                sys.stdout.write(made.logs()[-8000:])
            process.end()

    return running


def _directory(request: pytest.FixtureRequest, volumes: Any) -> Path:
    for name in volumes or {}:
        if found := re.fullmatch(r"\{(\w+)\.name\}", name):
            path: Path = request.getfixturevalue(found[1]).path
            return path
    raise LookupError(f"no volume among {volumes!r}")


def install() -> None:
    """Have ``import pytest_docker_tools`` find this."""
    tools, wrappers = ModuleType("pytest_docker_tools"), ModuleType("pytest_docker_tools.wrappers")
    wrapped, exceptions = (
        ModuleType("pytest_docker_tools.wrappers.container"),
        ModuleType("pytest_docker_tools.exceptions"),
    )
    exceptions.TimeoutError = TimeoutError  # type: ignore[attr-defined]
    for module in (wrappers, wrapped):
        module.Container = Container  # type: ignore[attr-defined]
    wrapped.wait_for_callable = wait_for_callable  # type: ignore[attr-defined]
    for name in ("build", "container", "fetch", "fxtr", "network", "volume"):
        setattr(tools, name, globals()[name])
    tools.wrappers, tools.exceptions = wrappers, exceptions  # type: ignore[attr-defined]
    wrappers.container = wrapped  # type: ignore[attr-defined]
    sys.modules.update({module.__name__: module for module in (tools, wrappers, wrapped, exceptions)})
