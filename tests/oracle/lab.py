"""Runs programs on a worker of either kind, and makes transcripts of what they did that can be compared."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import celery
import redis

import celeriac
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.oracle.app import QUEUES, Tasks, build
from tests.oracle.notebook import NOTES_URL, STORE_URL
from tests.oracle.programs import Program
from tests.oracle.transcript import Transcript, transcribe
from tests.servers import RedisServer
from tests.workers import close_results

STOCK, OURS = "celery", "celeriac"
SENDERS = {STOCK: celery.Celery, OURS: celeriac.Celery}
ROOT = Path(__file__).parents[2]
HOSTNAME = "oracle@here"

START_SECONDS = 30.0
QUIET_SECONDS = 2.0
"""Longer than anything that a program's tasks wait for without being in a queue."""
PATIENCE_SECONDS = 60.0
"""How long all programs together may take."""

_numbers = itertools.count()


class Lab:
    """A worker process of one kind on a database of its own, and apps of both kinds that send to it."""

    def __init__(self, server: RedisServer, kind: str, databases: tuple[int, int], log: Path) -> None:
        self.kind = kind
        self.url = server.database_url(databases[0])
        self._notes_url = server.database_url(databases[1])
        self.notes = redis.Redis.from_url(self._notes_url)
        self.store = redis.Redis.from_url(self.url)
        self.senders = {name: build(self.url, app_class) for name, app_class in SENDERS.items()}
        self._sent: dict[tuple[str, str], tuple[str, Any]] = {}
        self._seen = 0, 0.0
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._broker = connect.open_broker(self.senders[OURS].app) if kind == OURS else None

    # -- the worker ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the worker and wait until it is ready."""
        environment = {**os.environ, STORE_URL: self.url, NOTES_URL: self._notes_url, "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name(self.kind)), "-A", "tests.oracle.worker_app", "worker",
                    "--loglevel=INFO", "--concurrency=2", "--pool=prefork", f"--hostname={HOSTNAME}",
                    f"--queues={','.join(QUEUES)}", "--without-mingle", "--without-gossip",
                ],
                cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(self._ready, START_SECONDS, lambda: f"the worker did not start:\n{self._log.read_text()}")

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the worker ended:\n{self._log.read_text()}")
        return f"{HOSTNAME} ready." in self._log.read_text()

    def stop(self) -> None:
        """Stop the worker."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(15)
        self._sent.clear()
        for tasks in self.senders.values():
            tasks.app.backend._pending_results.concrete.clear()  # noqa: SLF001  # nothing public does it
        gc.collect()  # handles of results want their server when they go, and Celery keeps those that never came
        for tasks in self.senders.values():
            _close(tasks.app)
        for client in (self.notes, self.store):
            client.close()
        if self._broker is not None:
            self._broker.close()

    # -- programs --------------------------------------------------------------------------------------------------

    def send(self, programs: Mapping[str, Program], senders: tuple[str, ...]) -> None:
        """Run each program from each sender; the worker is busy with them when this returns."""
        for sender in senders:
            tasks = self.senders[sender]
            tasks.app.set_current()
            for name, program in programs.items():
                tag = f"{sender}-{name}-{next(_numbers)}"
                self._sent[sender, name] = tag, _attempt(program, tasks, tag)

    def collect(self) -> dict[tuple[str, str], Transcript]:
        """Wait until all is done, and return the transcripts by sender and program."""
        self.wait_until_idle()
        transcripts = {key: self._transcribe(key[0], *sent) for key, sent in self._sent.items()}
        self._sent.clear()
        self.notes.flushdb()
        return transcripts

    def _transcribe(self, sender: str, tag: str, result: Any) -> Transcript:
        self.senders[sender].app.set_current()
        return transcribe(self.senders[sender].app, self.notes.lrange(f"notes:{tag}", 0, -1), self.store, tag, result)

    # -- idle ------------------------------------------------------------------------------------------------------

    def wait_until_idle(self) -> None:
        """Wait until nothing is queued, scheduled, leased or running any more."""
        is_idle = self._celeriac_is_idle if self._broker is not None else self._celery_is_idle
        wait_until(lambda: _steady(is_idle), PATIENCE_SECONDS, lambda: f"the worker is not done: {self.remains()}")

    def remains(self) -> dict[str, Any]:
        """What is left to do, for people."""
        keys = sorted(key.decode() for key in self.store.keys("*") if not key.startswith(b"celery-task-meta-"))
        return {"keys": keys, "log": self._log.read_text()[-2000:]}

    def _celeriac_is_idle(self) -> bool:
        broker = self._broker
        assert broker is not None
        return not broker.leased_count() and not any(each.ready + each.scheduled for each in broker.depth(QUEUES))

    def _celery_is_idle(self) -> bool:
        pipe = self.store.pipeline(transaction=True)
        pipe.hlen("unacked")
        for queue in QUEUES:
            for priority in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
                pipe.llen(queue + priority)
        return not any(pipe.execute()) and self._counts_match()

    def _counts_match(self) -> bool:
        """Whether every task that was received has ended, as far as its signals tell.  Those of a task whose process was killed
        do not; then that nothing has happened for a while must do.
        """
        received = ended = total = 0
        for key in self.notes.scan_iter("notes:*", count=1000):
            lines = self.notes.lrange(key, 0, -1)
            total += len(lines)
            received += sum(b'"event": "task_received"' in line for line in lines)
            ended += sum(b'"event": "task_postrun"' in line or b'"event": "task_revoked"' in line for line in lines)
        if total != self._seen[0]:
            self._seen = total, time.monotonic()
        return ended >= received or time.monotonic() - self._seen[1] > QUIET_SECONDS


def _attempt(program: Program, tasks: Tasks, tag: str) -> Any:
    """What a program returns, or its error.  Celery warns of options that will go, and still honours them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return program(tasks, tag)
    except Exception as error:
        return error


def _close(app: Any) -> None:
    """Close what an app has open in this thread."""
    close_results(app)
    connect.producer(app).close()
    app.close()


def _steady(is_idle: Callable[[], bool]) -> bool:
    """Whether it is idle in several looks in a row: one look is several calls, between which a message can move."""
    for _ in range(4):
        if not is_idle():
            return False
        time.sleep(0.02)
    return True


@contextmanager
def laboratory(server: RedisServer, kind: str, databases: tuple[int, int], log: Path) -> Iterator[Lab]:
    """A lab with its worker running."""
    lab = Lab(server, kind, databases, log)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
