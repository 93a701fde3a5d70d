"""The task bodies that every system runs.  Standard library only: each system has a Python of its own."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Any


@lru_cache
def _log() -> int:
    return os.open(os.environ["BENCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _record(*fields: float) -> None:
    """Append one line.  Short appends to one file are atomic, so that all processes may share it."""
    os.write(_log(), (" ".join(map(repr, fields)) + "\n").encode())


def noop() -> None:
    """Nothing: what is left is the system's own cost."""


def tally(number: int) -> None:
    """Leave a mark, so that lost and doubled runs can be counted."""
    _record(number)


def stamp(sent: float) -> None:
    """Record when it was sent and when it started, in seconds since the epoch."""
    started = time.time()
    _record(sent, started)


def nap(seconds: float, number: int) -> None:
    """Wait without using the CPU; record number, start and end."""
    started = time.time()
    time.sleep(seconds)
    _record(number, started, time.time())


def burn(rounds: int) -> None:
    """Use the CPU for a fixed amount of work; record start and end."""
    started = time.time()
    value = 0
    for _ in range(rounds):
        value = (value * 31 + 7) % 1_000_003
    _record(started, time.time())


BODIES: dict[str, Any] = {body.__name__: body for body in (noop, tally, stamp, nap, burn)}
