"""Real workers as processes of their own, which end with the test whatever happens to it.

The processes of a node: the supervisor, its child the fork server, and the fork server's children, which are the slots.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from typing_extensions import Self

from celeriac import Celery
from celeriac.broker import Broker, DeadMessage
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.servers import die_with_parent

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class Effect(NamedTuple):
    """One line that a task wrote."""

    event: str
    key: str
    pid: int
    at: float
    """Seconds since the epoch."""


class Effects:
    """What the tasks of some workers did."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "effects"

    def all(self) -> list[Effect]:
        """Every effect so far, in order."""
        if not self.path.exists():
            return []
        lines = (line.split(" ") for line in self.path.read_text().splitlines())
        return [Effect(event, key, int(pid), float(at)) for event, key, pid, at in lines]

    def of(self, event: str, key: str | None = None) -> list[Effect]:
        """Effects of one kind."""
        return [effect for effect in self.all() if effect.event == event and key in (None, effect.key)]

    def count(self, event: str) -> Counter[str]:
        """How often each key had this event."""
        return Counter(effect.key for effect in self.of(event))

    def open_gate(self, name: str) -> None:
        """Let tasks go on that wait for this file."""
        self.path.with_name(name).touch()


class Worker:
    """One node of an app under test.

    Args:
        directory: for its log and the effects of its tasks; nodes that share it share the effects.
        broker: URL.
        backend: URL; ``None`` for no results.
        app: module of the app.
        pool: as in ``--pool``.
        concurrency: as in ``--concurrency``.
        options: more of the command's options.
        conf: settings of the app.
        env: more of its environment.
        name: of the node.
        program: the module of its command line: ours, or ``celery``.
    """

    def __init__(
        self,
        directory: Path,
        broker: str,
        backend: str | None = None,
        *,
        app: str = "tests.apps.survival",
        pool: str = "processes",
        concurrency: int = 2,
        options: Sequence[str] = (),
        conf: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        name: str = "one",
        program: str = "celeriac.cli.main",
    ) -> None:
        self.name = name
        self.pool = pool
        self.effects = Effects(directory)
        self.log_path = directory / f"{name}.log"
        self._command = [sys.executable, "-m", program, "-A", app, "worker", "--loglevel=INFO"]
        self._command += [f"--pool={pool}", f"--concurrency={concurrency}", f"--hostname={name}@test", *options]
        settings = {"TEST_BROKER": broker, "TEST_EFFECTS": str(self.effects.path), "TEST_CONF": json.dumps(conf or {})}
        if backend:
            settings["TEST_BACKEND"] = backend
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._environment = {**os.environ, "PYTHONPATH": path, **settings, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start and wait until it takes work."""
        self.launch()
        wait_until(self._is_ready, START_SECONDS, lambda: f"the worker did not start:\n{self.log()}")
        return self

    def launch(self) -> None:
        """Start without waiting."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_parent(), *self._command],
                env=self._environment,
                cwd=self.log_path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended with {self.process.returncode}:\n{self.log()}")
        return f"{self.name}@test ready." in self.log()

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send all processes of the node a signal."""
        os.killpg(self.pid, number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the worker did not end within {timeout:g} s:\n{self.log()}") from None

    def stop(self) -> int:
        """Stop it warmly; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """Kill what is left of it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal_group(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        """Start it."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it, and show its log if the test failed."""
        self.close()
        if error is not None:
            sys.stdout.write(f"---- log of {self.name} ----\n{self.log()[-8000:]}\n")

    # -- what it is doing ------------------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def slots(self) -> list[int]:
        """Process ids of the slots."""
        return [slot for server in children(self.pid) for slot in children(server)]

    def log(self) -> str:
        """What it printed and logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def measured(text: str) -> None:
    """Show a figure (``pytest -rP``)."""
    sys.stdout.write(f"measured: {text}\n")


def children(pid: int) -> list[int]:
    """Process ids of a process's children; none when it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that was killed and not yet buried does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def close_results(app: Any) -> None:
    """Give up the connections that Celery keeps to an app's results in Redis.  Nothing public does it, and the collector would find them
    open in the middle of some later test.

    Celery makes the backend when it is first used: an app that never used one has nothing to close.
    """
    backend = app._backend  # noqa: SLF001 - the public property would make one
    if hasattr(backend, "result_consumer") and hasattr(backend, "client"):  # not rpc://, say
        backend._pending_results.concrete.clear()  # noqa: SLF001 - handles of results hold on to it
        backend.result_consumer.stop()
        backend.client.close()


class Stage:
    """A pair of stores, a client of them, and the workers of one test.

    Args:
        directory: an empty one.
        broker: URL; a file in the directory when it is left out.
        backend: URL; the broker's when it is left out.
        app: module of the app that the workers run.
        conf: settings of the workers' app and of the client.
    """

    def __init__(
        self,
        directory: Path,
        broker: str | None = None,
        backend: str | None = None,
        *,
        app: str = "tests.apps.survival",
        conf: dict[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.broker_url = broker or f"sqlite:///{directory}/store.sqlite3"
        self.backend_url = backend or self.broker_url
        self.module = app
        self.conf = conf or {}
        self.effects = Effects(directory)
        self.client = Celery("client", broker=self.broker_url, backend=self.backend_url, set_as_current=False)
        self.client.conf.update(self.conf)
        self.broker: Broker = connect.open_broker(self.client)

    def worker(self, **options: Any) -> Worker:
        """A worker, not yet started; options as :class:`Worker` has them."""
        conf = {**self.conf, **options.pop("conf", {})}
        broker = options.pop("broker", self.broker_url)
        backend = options.pop("backend", self.backend_url)
        return Worker(self.directory, broker, backend, app=self.module, conf=conf, **options)

    def signature(self, task: str, *args: Any, **options: Any) -> Any:
        """A signature of one of the app's tasks."""
        return self.client.signature(f"{self.module}.{task}", args, **options)

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send one of the app's tasks; return its ``AsyncResult``."""
        return self.client.send_task(f"{self.module}.{task}", args, **options)

    def send_many(self, task: str, keys: Sequence[Any]) -> list[Any]:
        """Send a task once for each key, in one round trip."""
        with self.client.batch():
            return [self.send(task, key) for key in keys]

    def is_drained(self) -> bool:
        """Whether nothing is queued, scheduled or leased."""
        depth = self.broker.depth(["celery"])[0]
        return depth.ready == 0 and depth.scheduled == 0 and self.broker.leased_count() == 0

    def wait_for(self, event: str, key: str, times: int = 1, timeout: float = 15.0) -> list[Effect]:
        """Wait until a task has written this effect so often."""
        return wait_until(
            lambda: found if len(found := self.effects.of(event, key)) >= times else None,
            timeout,
            lambda: f"{event} {key} was written {len(self.effects.of(event, key))} times, not {times}",
            interval=0.003,
        )

    def wait_until_drained(self, timeout: float = 20.0) -> None:
        """Wait until nothing is queued, scheduled or leased."""
        wait_until(self.is_drained, timeout, lambda: f"left: {self.broker.depth(['celery'])[0]}")

    def dead(self) -> list[DeadMessage]:
        """Dead letters, oldest first."""
        return self.broker.dead_letters(1000)[::-1]

    def close(self) -> None:
        """Give up connections."""
        self.broker.close()
        close_results(self.client)
        connect.producer(self.client).close()
        self.client.close()

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up connections."""
        self.close()
