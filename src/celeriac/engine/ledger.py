"""A slot's ledger in shared memory: what is running, and what has finished but is not settled yet.

The slot writes it, the supervisor reads it.  It survives the slot's death, so that the supervisor knows which body had
started, and can settle what had finished.

Layout::

    running   concurrency x (tag int64, started, soft deadline, hard deadline: float64; monotonic clock)   tag 0: free
    log 0, 1  used bytes uint64, then records (kind uint8, tag int64, length uint32, payload)

The two logs take turns: while the records of one are being settled, new ones go to the other.
"""

from __future__ import annotations

import marshal
import mmap
import os
import pickle
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from celeriac.message import Delivery
from celeriac.outcome import Outcome, Result, State

LOG_BYTES = 1 << 20
"""Room for one log.  An outcome that does not fit is settled at once instead."""

RESERVED = 1 << 16
"""Of that, for the tags of outcomes that did not fit."""

_RUN = struct.Struct("<qddd")
_TAG = struct.Struct("<q")
_USED = struct.Struct("<Q")
_RECORD = struct.Struct("<BqI")
_PLAIN, _RESULT, _PICKLED, _UNKEPT = 0, 1, 2, 3


class Running(NamedTuple):
    """One run in progress.  Times are of the monotonic clock, in seconds, which all processes of a machine share."""

    tag: int
    started: float
    soft_deadline: float
    """0: none."""
    hard_deadline: float
    """0: none."""


def create_file(concurrency: int) -> int:
    """Make the shared memory and return its file descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("celeriac-ledger")
    else:
        fd, path = tempfile.mkstemp(prefix="celeriac-ledger-")
        Path(path).unlink()
    os.ftruncate(fd, _size(concurrency))
    return fd


def _size(concurrency: int) -> int:
    return concurrency * _RUN.size + 2 * (_USED.size + LOG_BYTES)


class Ledger:
    """Shared memory of one slot."""

    def __init__(self, fd: int, concurrency: int) -> None:
        self._memory = mmap.mmap(fd, _size(concurrency))
        self._concurrency = concurrency
        first = concurrency * _RUN.size
        self._logs = (first, first + _USED.size + LOG_BYTES)
        self._active = 0
        self._used = [0, 0]
        self._lock = threading.Lock()

    # -- by the slot -----------------------------------------------------------------------------------------------

    def start(self, place: int, tag: int, started: float, soft_deadline: float, hard_deadline: float) -> None:
        """A body is about to start."""
        _RUN.pack_into(self._memory, place * _RUN.size, tag, started, soft_deadline, hard_deadline)

    def clear(self, place: int) -> None:
        """The body that ran here has an outcome, which is in the log or will not be."""
        _TAG.pack_into(self._memory, place * _RUN.size, 0)

    def finish(self, place: int, outcome: Outcome) -> bool:
        """A body has ended; return False when the log is full and the outcome must be settled now."""
        kind, payload = _encode(outcome)
        with self._lock:
            fits = self._append(kind, outcome.delivery.tag, payload, LOG_BYTES - RESERVED)
            if not fits:
                self._append(_UNKEPT, outcome.delivery.tag, b"", LOG_BYTES)
        _TAG.pack_into(self._memory, place * _RUN.size, 0)
        return fits

    def _append(self, kind: int, tag: int, payload: bytes, room: int) -> bool:
        base, used = self._logs[self._active], self._used[self._active]
        after = used + _RECORD.size + len(payload)
        if after > room:
            return False
        at = base + _USED.size + used
        _RECORD.pack_into(self._memory, at, kind, tag, len(payload))
        if payload:
            self._memory[at + _RECORD.size : at + _RECORD.size + len(payload)] = payload
        _USED.pack_into(self._memory, base, after)
        self._used[self._active] = after
        return True

    def turn_page(self) -> int:
        """Direct new records to the other log; return the log to clear once what is in it has been settled."""
        with self._lock:
            page = self._active
            self._active = 1 - page
            return page

    def clear_page(self, page: int) -> None:
        """The outcomes of this log are settled."""
        with self._lock:
            _USED.pack_into(self._memory, self._logs[page], 0)
            self._used[page] = 0

    # -- by the supervisor -----------------------------------------------------------------------------------------

    def running(self) -> list[Running]:
        """What runs now."""
        entries = (_RUN.unpack_from(self._memory, place * _RUN.size) for place in range(self._concurrency))
        return [Running(*entry) for entry in entries if entry[0]]

    def finished(self) -> dict[int, Outcome]:
        """Outcomes by tag that may not be settled yet."""
        records = (record for log in self._logs for record in self._records(log))
        return {tag: _decode(kind, tag, payload) for kind, tag, payload in records if kind != _UNKEPT}

    def unkept(self) -> set[int]:
        """Tags of bodies that have ended with an outcome that did not fit, and that may not be settled yet."""
        return {tag for log in self._logs for kind, tag, _ in self._records(log) if kind == _UNKEPT}

    def _records(self, log: int) -> Iterator[tuple[int, int, bytes]]:
        (used,) = _USED.unpack_from(self._memory, log)
        at, end = log + _USED.size, log + _USED.size + used
        while at < end:
            kind, tag, length = _RECORD.unpack_from(self._memory, at)
            at += _RECORD.size
            yield kind, tag, self._memory[at : at + length]
            at += length

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def _encode(outcome: Outcome) -> tuple[int, bytes]:
    """The two frequent kinds of outcome are written in a form that costs little."""
    rest = outcome[3:7]
    if rest != ((), (), None, None) or outcome.chords_done or outcome.guarded or outcome.keys:
        return _PICKLED, pickle.dumps(outcome)
    results = outcome.results
    if not results:
        return _PLAIN, b""
    if len(results) == 1:
        return _RESULT, marshal.dumps(tuple(results[0]))
    return _PICKLED, pickle.dumps(outcome)


def _decode(kind: int, tag: int, payload: bytes) -> Outcome:
    if kind == _PICKLED:
        outcome = pickle.loads(payload)
        assert isinstance(outcome, Outcome)
        return outcome
    results = (Result(*marshal.loads(payload)),) if kind == _RESULT else ()
    return Outcome(Delivery(tag, "", b""), State.SUCCEEDED, results)
