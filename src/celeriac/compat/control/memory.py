"""Memory that a worker's supervisor shares with its slots, made before they are forked."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import struct
import tempfile
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<QI")
_READ_SECONDS = 1.0

ROWS = 256
"""Slots that count apart from each other.  Slots whose numbers differ by a multiple of it share a row, which only matters
while both are alive: then a count may be lost now and then."""


class Record:
    """One value that the supervisor replaces as a whole and that slots read."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("celeriac-orders")
        else:
            self._fd, path = tempfile.mkstemp(prefix="celeriac-orders-")
            Path(path).unlink()

    def write(self, value: Any) -> None:
        """Replace the value."""
        payload = pickle.dumps(value)
        os.pwrite(self._fd, _HEADER.pack(len(payload), zlib.crc32(payload)) + payload, 0)

    def read(self) -> Any:
        """The value; ``None`` when there is none yet.

        A reader in another process may see half of a write; the checksum tells, and a moment later it is whole.
        """
        deadline = time.monotonic() + _READ_SECONDS
        while True:
            header = os.pread(self._fd, _HEADER.size, 0)
            if not header:
                return None
            length, checksum = _HEADER.unpack(header)
            payload = os.pread(self._fd, length, _HEADER.size)
            if zlib.crc32(payload) == checksum:
                return pickle.loads(payload)  # noqa: S301 - memory that only our own processes have
            if time.monotonic() > deadline:
                raise RuntimeError("the supervisor's standing orders cannot be read")
            time.sleep(0.001)


class Counts:
    """How many tasks of each name were started, by all slots of the node since it was started.

    Each slot adds to a row of its own, so that no lock is needed.  Threads of one slot may very seldom lose a count.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: column for column, name in enumerate(sorted(names))}
        self._width = max(1, len(self._columns))
        self._memory = memoryview(mmap.mmap(-1, ROWS * self._width * 8)).cast("Q")
        self._row = 0

    def take_row(self) -> None:
        """Count in this slot's row from now on."""
        number = multiprocessing.current_process().name.rpartition("-")[2]
        self._row = (int(number) % ROWS if number.isdigit() else 0) * self._width

    def add(self, name: str) -> None:
        """Count one.  Tasks that were registered after the start are not counted."""
        column = self._columns.get(name)
        if column is not None:
            self._memory[self._row + column] += 1

    def totals(self) -> dict[str, int]:
        """Counts by name, of those that are not 0."""
        found = {name: sum(self._memory[column :: self._width]) for name, column in self._columns.items()}
        return {name: count for name, count in found.items() if count}
