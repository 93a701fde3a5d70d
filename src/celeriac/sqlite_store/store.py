"""Connections to one SQLite file, and transactions that wait for their turn."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

from celeriac.errors import ConfigurationError, StoreUnavailable
from celeriac.sqlite_store import bell, schema
from celeriac.sqlite_store.failures import is_busy, translated

T = TypeVar("T")
Synchronous = Literal["FULL", "NORMAL"]

LOCK_TIMEOUT = 10.0
"""Seconds to wait for a locked file before giving up."""

_FIRST_NAP, _LONGEST_NAP = 0.0003, 0.004
"""Seconds between tries for the write lock.  SQLite's own waiting sleeps up to 100 ms, which starves a process among
many: these naps are as long as a transaction, and random, so that everybody's chance is the same."""

_CHECKPOINT_PAGES = 4000
"""Pages in the WAL (16 MB) before a commit copies them into the database.  The pages at both ends of a queue are
written again and again; the more of that is gathered, the fewer copies.  Larger costs disk and a longer pause."""

_WAL_LIMIT = 64 * 1024 * 1024
"""Bytes of WAL at which a checkpoint is forced.  Ordinary ones give way to readers, and with enough readers the WAL
would grow without end."""

_CHECK_WAL_EVERY = 64
"""Commits between looks at the WAL's size."""

_PRAGMAS = (
    # Debian builds SQLite with secure_delete on, which writes zeros over every message that is done.
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -8000",
    f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {_WAL_LIMIT}",
)


class SQLiteStore:
    """One SQLite file in WAL mode, for the threads of one process.

    Each call borrows a connection that no other thread uses meanwhile.  A child process of a fork starts without
    connections; the parent's are neither used nor closed there, for SQLite's locks would be lost.

    Args:
        path: the file.  It is created when it is missing; its directory must exist.
        timeout: seconds to wait for other processes' transactions.  Too low and a slow disk fails callers, too high
            and they hang on a file that somebody keeps locked.
        synchronous: ``"FULL"`` makes every commit durable.  ``"NORMAL"`` does not wait for the disk at commit: a
            killed process still loses nothing, but a power cut or a crash of the system may lose the last seconds.
            It is worth some 5 times the rate of single publishes (on a disk that syncs in 0.4 ms), and a
            third for batches.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float, synchronous: Synchronous) -> None:
        schema.check_library()
        self.path = _absolute(path)
        self.timeout = timeout
        self.synchronous = _checked(synchronous)
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._generation = 0
        self._commits = 0
        _STORES.add(self)

    @property
    def url(self) -> str:
        """``sqlite:///`` and the path."""
        return f"sqlite:///{self.path}"

    @property
    def wal_path(self) -> str:
        """The write-ahead log beside the file."""
        return self.path + "-wal"

    def same_file(self, other: SQLiteStore) -> bool:
        """Whether both are the same file."""
        return os.path.realpath(self.path) == os.path.realpath(other.path)

    # -- transactions ----------------------------------------------------------------------------------------------

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a connection; it may be run again when the file is busy, so it must only read."""
        with self._translating(), self._borrowed() as connection:
            return self._patiently(lambda: work(connection))

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction: all that it writes is committed, or nothing when it raises."""
        with self._translating(), self._turn_to_write(), self._borrowed() as connection:
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                value = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            self._bound_wal(connection)
            return value

    def wait(self, path: str, look: Callable[[sqlite3.Connection], bool], timeout: float) -> bool:
        """Block until ``look`` is true, woken by the bell of ``path``; return what it said last."""
        with self._translating(), self._borrowed() as connection:
            return bell.wait_for(path, lambda: self._patiently(lambda: look(connection)), timeout)

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        with self._pool_lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- waiting for the lock --------------------------------------------------------------------------------------

    def _patiently(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + self.timeout
        nap = _FIRST_NAP
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(nap * random.random())
            nap = min(nap * 1.5, _LONGEST_NAP)

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        # Threads of one process queue here, so that they need not try again and again.
        if not self._write_lock.acquire(timeout=self.timeout):
            raise StoreUnavailable(f"SQLite: another thread has been writing to {self.path} for {self.timeout:g} s")
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    # -- connections -----------------------------------------------------------------------------------------------

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        generation, connection = self._take()
        try:
            yield connection
        except sqlite3.Error as error:
            if not is_busy(error):
                generation = -1  # whatever is wrong with it, the next caller gets a new one
            raise
        finally:
            self._give_back(generation, connection)

    def _take(self) -> tuple[int, sqlite3.Connection]:
        with self._pool_lock:
            generation = self._generation
            if self._idle:
                return generation, self._idle.pop()
        return generation, self._patiently(self._open)

    def _give_back(self, generation: int, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            if generation == self._generation:
                self._idle.append(connection)
                return
        with suppress(sqlite3.Error):
            connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        if schema.is_current(connection, self.path):
            return
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(f"SQLite: {self.path} cannot use a write-ahead log (its file system lacks it?)")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not schema.is_current(connection, self.path):
                schema.create(connection)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        self._commits += 1
        if self._commits % _CHECK_WAL_EVERY or _size(self.wal_path) < _WAL_LIMIT:
            return
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 200")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute("PRAGMA busy_timeout = 0")

    def leave_to_parent(self) -> None:
        """In the child of a fork: begin without connections, and leave the parent's alone."""
        # New locks: the parent's other threads may have held the old ones, and they do not exist here.
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        _ABANDONED.extend(self._idle)
        self._idle = []
        self._generation += 1


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not text or ":memory:" in text:
        raise ConfigurationError("SQLite needs a file that all processes can open, for example celery.sqlite3")
    return os.path.abspath(text)  # noqa: PTH100 - Path.resolve follows links, and the name is for people


def _checked(synchronous: Synchronous) -> Synchronous:
    if synchronous not in ("FULL", "NORMAL"):
        raise ConfigurationError(f'synchronous is "FULL" or "NORMAL", not {synchronous!r}')
    return synchronous


_STORES: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()

_ABANDONED: list[sqlite3.Connection] = []
"""Connections that belong to the parent process: kept, so that the garbage collector does not close them here."""


def _after_fork() -> None:
    for store in list(_STORES):
        store.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
