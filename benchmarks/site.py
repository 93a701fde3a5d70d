"""Where one measurement takes place: a fresh Redis, a delay in front of it, a file for the task bodies' records."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import redis

from tests.servers import RedisServer

ROOT = Path(__file__).parents[1]


class Closable(Protocol):
    """Something with connections."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@dataclass(frozen=True, slots=True)
class Site:
    """One measurement's surroundings."""

    redis: redis.Redis
    """A client without delay, for the benchmark itself."""
    near_url: str
    """The server, without delay."""
    url: str
    """The server as the measured system sees it."""
    directory: Path
    """Files of this measurement; deleted after it."""
    results: bool
    proxy: Delay | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    kept: dict[str, Closable] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What task bodies write to."""
        return self.directory / "records"

    def keep(self, name: str, make: Callable[[], C]) -> C:
        """Make something once and close it after this measurement: a look from outside must cost little."""
        if name not in self.kept:
            self.kept[name] = made = make()
            self.stack.callback(made.close)
        return self.kept[name]  # type: ignore[return-value]

    def environment(self, *, near: bool) -> dict[str, str]:
        """For workers, and for senders (``near``: without the delay)."""
        return os.environ | {
            "BENCH_URL": self.near_url if near else self.url,
            "BENCH_RESULTS": "on" if self.results else "off",
            "BENCH_LOG": str(self.log),
            "PYTHONPATH": str(ROOT),
        }

    def forget_records(self) -> None:
        """Start afresh.  Task bodies keep the file open, so it stays and is emptied."""
        os.truncate(self.log, 0)

    def records(self) -> list[tuple[float, ...]]:
        """What task bodies have recorded so far."""
        if not self.log.exists():
            return []
        # The last line may still be being written.
        lines = self.log.read_text().split("\n")[:-1]
        return [tuple(map(float, line.split())) for line in lines]


class Delay:
    """The proxy process in front of a server."""

    def __init__(self, server_port: int, round_trip: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.proxy", str(server_port), str(round_trip / 2)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._read()

    def round_trips(self) -> int:
        """How many there have been."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def open_site(*, results: bool, rtt: float) -> Iterator[Site]:
    """A fresh Redis without persistence, seen by the measured system with ``rtt`` milliseconds of added round trip."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-bench-")))
        delay = Delay(server.port, rtt / 1000) if rtt else None
        if delay:
            stack.callback(delay.close)
        url = f"redis://127.0.0.1:{delay.port}/0" if delay else server.url
        client = stack.enter_context(server.client())
        yield Site(client, server.url, url, directory, results, delay, stack)
