"""Celery's ``memory://`` broker, which lives in one process: what policies share there is a file that ends with the process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from celeriac.keyvalue import KeyValueStore
from celeriac.keyvalues.sqlite import SQLiteKeyValues


def open_key_values(app: Any, url: str, *, apart: bool) -> KeyValueStore:
    """A key-value store for this app and URL."""
    return SQLiteKeyValues(_directory(os.getpid()) / "keys.sqlite3", synchronous="NORMAL")


@cache
def _directory(pid: int) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f"celeriac-memory-{pid}-"))
    atexit.register(_remove, directory, pid)
    return directory


def _remove(directory: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a process that was forked since
        shutil.rmtree(directory, ignore_errors=True)
