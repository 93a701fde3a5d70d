"""What the slots of this machine hold of a transport that cannot say, or does not keep, what it has given away.

One file for each owner.  Its process writes down what it takes before anybody works on it, and holds a lock on the file for as
long as it lives; when it is killed, whoever rescues it reads there what it held.  Nothing is forced onto the disk: this is
about processes that die, and a machine that dies takes with it what its slots had taken from a transport that keeps nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pickle
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from celeriac.errors import ConfigurationError
from celeriac.message import Delivery


class Entry(NamedTuple):
    """One message that an owner holds."""

    delivery: Delivery
    taken: bool
    """Whether the transport does not have it any more."""


def directory_of(url: str) -> Path:
    """Where the journals of a broker are.

    Raises:
        ConfigurationError: somebody else can write there, and could make a worker read what they please.
    """
    home = Path(tempfile.gettempdir(), f"celeriac-{os.getuid()}")
    place = f"{url} {os.getpid()}" if url.startswith("memory:") else url  # as far as its messages can be seen
    directory = home / hashlib.sha256(place.encode()).hexdigest()[:16]
    for path in (home, directory):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.getuid()
            or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        ):
            raise ConfigurationError(
                f"{path} is not a directory that only this user can write to, and journals of messages are kept there: "
                "remove it, or set TMPDIR to a directory of this user's own"
            )
    return directory


class Journal:
    """One owner's file."""

    def __init__(self, directory: Path, owner: str) -> None:
        self.path = directory / f"{hashlib.sha256(owner.encode()).hexdigest()[:32]}.journal"
        self.owner = owner
        self._file: IO[bytes] | None = None
        self._start = 0

    # -- by its owner ----------------------------------------------------------------------------------------------

    def open(self, ttl: float) -> None:
        """Make the file, and hold its lock."""
        file = self._file = self.path.open("wb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._write(("owner", self.owner, ttl))
        self._start = file.tell()

    def lease(self, delivery: Delivery, *, taken: bool) -> None:
        """The owner has got a message."""
        self._write(("lease", *delivery, taken))

    def take(self, tag: int) -> None:
        """The transport is told that it need not keep the message."""
        self._write(("take", tag))

    def done(self, tag: int, *, empty: bool = False) -> None:
        """The message is in its place; ``empty``: nothing else is held, so that the file can start anew."""
        if empty and self._file is not None:
            self._file.truncate(self._start)
            self._file.seek(self._start)
        else:
            self._write(("done", tag))

    def _write(self, record: tuple[Any, ...]) -> None:
        if self._file is not None:
            self._file.write(pickle.dumps(record))

    def close(self) -> None:
        """Give up the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- by others -------------------------------------------------------------------------------------------------

    def held(self) -> dict[int, Entry]:
        """What the owner holds, by tag."""
        held: dict[int, Entry] = {}
        for kind, tag, *rest in _records(self.path):
            if kind == "lease":
                queue, raw, taken = rest
                held[tag] = Entry(Delivery(tag, queue, raw), taken)
            elif kind == "take" and tag in held:
                held[tag] = held[tag]._replace(taken=True)
            elif kind == "done":
                held.pop(tag, None)
        return held

    @contextmanager
    def rescued(self) -> Iterator[Journal]:
        """Write to the file of an owner that is dead; one rescuer at a time."""
        if not self.path.exists():
            yield self
            return
        # A lock of its own: the owner of a solo pool is rescued while its process lives.
        with self.path.with_suffix(".rescue").open("ab") as lock, self.path.open("ab", buffering=0) as file:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._file = file
            try:
                yield self
            finally:
                self._file = None

    def touch(self) -> None:
        """Say that the owner's node is alive."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)

    def remove(self) -> None:
        """Forget the owner."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".rescue").unlink(missing_ok=True)


def journals(directory: Path) -> list[Journal]:
    """All owners of this machine."""
    found = []
    for path in directory.glob("*.journal"):
        first = next(_records(path), None)
        if first is not None and first[0] == "owner":
            found.append(Journal(directory, first[1]))
    return found


def is_abandoned(journal: Journal) -> bool:
    """Whether its node has not been heard of for its time to live, and its process is dead."""
    try:
        ttl = next(_records(journal.path))[2]
        with journal.path.open("rb") as file:
            silent = time.time() - os.fstat(file.fileno()).st_mtime
            if silent < ttl:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, StopIteration, BlockingIOError):
        return False
    return True


def _records(path: Path) -> Iterator[tuple[Any, ...]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while True:
            try:
                yield pickle.load(file)  # noqa: S301 - nobody but this user can write there
            except (EOFError, pickle.UnpicklingError):  # the last record may be cut off
                return
