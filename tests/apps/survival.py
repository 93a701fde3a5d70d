"""The app whose workers the tests of survival kill, starve and confuse.

What its tasks do is written to a file, one line per effect, so that it can be counted whatever happens to the worker.
The broker, the result store, settings and that file come from the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from celeriac import Celery

app = Celery(
    "survival",
    broker=os.environ.get("TEST_BROKER", "sqlite:///unused.sqlite3"),
    backend=os.environ.get("TEST_BACKEND"),
)
app.conf.update(
    {
        "task_acks_late": False,
        "worker_enable_remote_control": False,
        **json.loads(os.environ.get("TEST_CONF", "{}")),
    }
)


def record(event, key=""):
    """Write one line: event, key, process, wall-clock time.  Appending so little is atomic."""
    line = f"{event} {key} {os.getpid()} {time.time()}\n".encode()
    file = os.open(os.environ["TEST_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)


def wait_for_file(name, seconds=30.0):
    """Block in small steps until the test makes this file, which stands beside the effects."""
    path = Path(os.environ["TEST_EFFECTS"]).with_name(name)
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@shared_task
def note(key):
    record("ran", key)
    return key


@shared_task(bind=True)
def tick(self):
    """A periodic task: it is known by the moment at which it was due."""
    record("ticked", str(self.request.headers["celeriac-tick"]))


@shared_task(acks_late=True)
def note_late(key):
    record("ran", key)
    return key


@shared_task(acks_late=True, ignore_result=True)
def trivial():
    """Do nothing."""


@shared_task
def hold(key, gate):
    """Run until the test opens the gate."""
    record("started", key)
    wait_for_file(gate)
    record("ran", key)
    return key


@shared_task(acks_late=True)
def hold_late(key, gate):
    record("started", key)
    wait_for_file(gate)
    record("ran", key)
    return key


@shared_task
async def hold_async(key, gate):
    record("started", key)
    path = Path(os.environ["TEST_EFFECTS"]).with_name(gate)
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - the test speaks through files
        await asyncio.sleep(0.005)
    record("ran", key)
    return key


@shared_task
def pause(key, seconds):
    record("started", key)
    time.sleep(seconds)
    record("ran", key)
    return key


@shared_task(acks_late=True)
def pause_late(key, seconds):
    record("started", key)
    time.sleep(seconds)
    record("ran", key)
    return key


@shared_task(acks_late=True)
def kill_once(key):
    """Kill the own process, the first time."""
    path = Path(os.environ["TEST_EFFECTS"]).with_name(f"killed-{key}")
    record("started", key)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    record("ran", key)
    return key


@shared_task(acks_late=True)
def kill_always(key):
    record("started", key)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def kill_early(key):
    record("started", key)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def leave(key, code):
    """End the own process as a worker never does: without a word."""
    record("started", key)
    os._exit(code)


# -- limits ------------------------------------------------------------------------------------------------------------


@shared_task(soft_time_limit=0.3)
def softly_asleep(key):
    try:
        for _ in range(1000):
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        record("caught", key)
        return "caught"
    return "never interrupted"


@shared_task(soft_time_limit=0.3)
def softly_busy(key):
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pass
    except SoftTimeLimitExceeded:
        record("caught", key)
        return "caught"
    return "never interrupted"


@shared_task(soft_time_limit=0.3)
async def softly_async(key):
    try:
        await asyncio.sleep(10)
    except SoftTimeLimitExceeded:
        record("caught", key)
        return "caught"
    return "never interrupted"


@shared_task(soft_time_limit=0.3)
def softly_failing(key):
    for _ in range(1000):
        time.sleep(0.01)


@shared_task(time_limit=0.4)
def asleep(key):
    record("started", key)
    time.sleep(20)


@shared_task(time_limit=0.4)
def busy(key):
    record("started", key)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pass


@shared_task(time_limit=0.4, soft_time_limit=0.2)
def stubborn(key):
    """Catch the soft limit and go on."""
    record("started", key)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            time.sleep(0.01)
        except SoftTimeLimitExceeded:
            record("caught", key)


@shared_task(time_limit=0.4)
async def asleep_async(key):
    record("started", key)
    await asyncio.sleep(20)


@shared_task
def short(key):
    """As long as a soft limit that may just hit or miss it."""
    time.sleep(0.01)
    return key


@shared_task
def hoard(key, mebibytes):
    """Take memory and keep it."""
    hoarded.append(b"x" * (mebibytes << 20))
    record("ran", key)
    return os.getpid()


hoarded: list[bytes] = []


# -- values that no store takes ----------------------------------------------------------------------------------------


@shared_task
def length(text):
    return len(text)


@shared_task
def unspeakable(kind):
    """Return what cannot be encoded."""
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    return {"object": object(), "nan-key": {(1, 2): 3}, "deep": nested, "surrogate": "\ud800"}[kind]


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__()
        self.lock = open(os.devnull)  # noqa: PTH123, SIM115 - something that cannot be pickled


@shared_task
def unspeakable_error(kind):
    """Raise what cannot be encoded."""
    errors = {
        "surrogate": ValueError("\ud800"),
        "unprintable": UnprintableError(),
        "unpicklable": UnpicklableError(1, 2),
        "huge": ValueError("x" * 5_000_000),
    }
    raise errors[kind]
