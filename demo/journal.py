"""What the tasks did, one JSON line for each start and each end: the evidence that the final table is made of."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """One start or one end of a task's body."""

    event: Literal["start", "end"]
    task: str
    task_id: str
    order_id: str
    at: float
    """Seconds since the epoch."""
    pid: int
    retries: int = 0
    redelivered: bool = False
    sent: float | None = None
    """When the message was sent: seconds since the epoch; ``None`` where it does not tell."""
    state: str = ""
    """Celery's name for how it ended."""
    detail: str = ""
    """For a task on a picture, which size."""

    @property
    def run(self) -> tuple[str, int]:
        """Task id and attempt.  Two starts of one run mean that the first process died."""
        return self.task_id, self.retries


class JournalWriter:
    """Appends entries.  Safe for many threads and processes: each entry is one small write at the end of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def write(self, entry: Entry) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._descriptor, json.dumps(asdict(entry)).encode() + b"\n")


class JournalReader:
    """Reads what was appended since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_entries(self) -> list[Entry]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [Entry(**json.loads(line)) for line in whole.splitlines()]
