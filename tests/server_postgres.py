"""A real PostgreSQL of our own, and a PgBouncer before it: started on free loopback ports, stopped by process id.

``fsync`` is off: the tests kill processes, never the machine, and what a process has written survives it in the system's
cache.  So a killed server recovers all that it had confirmed, and the tests do not wait for a disk.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import psycopg
from typing_extensions import Self

from tests.helpers import free_port, wait_until
from tests.servers import START_ATTEMPTS, START_TIMEOUT, STOP_TIMEOUT, ServerMissing, die_with_parent

ADMIN = "postgres"
"""The superuser of every server of ours."""

WALLED = "walled"
"""A role that must give its password, :data:`PASSWORD`; all others are trusted."""

PASSWORD = "correct horse"

_SETTINGS = (
    "fsync = off",
    "full_page_writes = off",
    "max_connections = 200",
    "shared_buffers = 64MB",
    "autovacuum_naptime = 5s",
    "log_min_messages = fatal",
)

_HBA = f"""\
local all all trust
host all {WALLED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


def postgres_programs() -> Path:
    """The folder with ``initdb`` and ``postgres``: ``PG_BIN`` if set, Debian's newest, or the one that is on the path.

    Raises:
        ServerMissing: there is none.
    """
    chosen = os.environ.get("PG_BIN")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("postgres")
    for folder in (chosen, *reversed(debian), on_path and Path(on_path).resolve().parent):
        if folder and (Path(folder) / "initdb").exists():
            return Path(folder)
    raise ServerMissing("no PostgreSQL server; on Debian and Ubuntu: sudo apt-get install postgresql")


def pgbouncer_program() -> Path:
    """PgBouncer.  Raises ``ServerMissing`` when there is none."""
    found = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if not found:
        raise ServerMissing("no PgBouncer; on Debian and Ubuntu: sudo apt-get install pgbouncer")
    return Path(found)


def not_as_root() -> list[str]:
    """Command prefix for programs that refuse to run as root."""
    if os.geteuid() != 0:
        return []
    user = _unprivileged()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def new_directory(kind: str) -> Path:
    """A folder of which the server is the owner."""
    directory = Path(tempfile.mkdtemp(prefix=f"celeriac-{kind}-"))
    return _given(directory)


def _given(path: Path) -> Path:
    """The same file or folder; the server's user is its owner now."""
    if os.geteuid() == 0:
        user = _unprivileged()
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


class PostgresServer:
    """One private PostgreSQL.

    Args:
        settings: more lines for ``postgresql.conf``.
    """

    def __init__(self, settings: Sequence[str] = ()) -> None:
        self.settings = tuple(settings)
        self.port = 0
        self.directory = new_directory("postgres")
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, on the same port as before if there was one, and wait until it answers.

        Raises:
            ServerMissing: no PostgreSQL on this machine.
            RuntimeError: it ended or did not answer; the text has its log.
        """
        self._create()
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._answers(port):
                self.port = port
                return self
            self._process.wait(STOP_TIMEOUT)
            if "Address already in use" not in self._log():
                break
        raise RuntimeError(f"postgres did not start:\n{self._log()}")

    def stop(self) -> None:
        """End it in order, cutting connections; nothing is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for all its processes, as when the machine is lost."""
        if self.pid is None:
            return
        children = psutil.Process(self.pid).children(recursive=True)
        self._end(signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, STOP_TIMEOUT)

    def restart(self) -> Self:
        """Stop and start on the same port."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self._signal_all(signal.SIGCONT)

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
        """The URL of the database that every server has."""
        return self.database_url("postgres")

    def database_url(self, name: str, user: str = ADMIN) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"celeriac_{next(self._names)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def empty(self, name: str) -> None:
        """Cut all connections to a database and empty the tables of its Celeriac schema: quicker than a new one."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            name,
        )
        tables = self.execute(
            "SELECT 'celeriac.' || relname FROM pg_class WHERE relnamespace = 'celeriac'::regnamespace AND relkind = 'r' "
            "AND relname <> 'migrations'",
            name,
        )
        self.execute(f"TRUNCATE {', '.join(table for (table,) in tables)}", name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; return its rows, if it has any."""
        with psycopg.connect(self.database_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    # -- TLS -------------------------------------------------------------------------------------------------------

    def use_tls(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Speak TLS with this certificate from now on; with a CA for clients, only to those with a certificate of it."""
        own = {
            name: self._own_copy(file)
            for name, file in (("cert", certificate), ("key", key), ("ca", client_ca))
            if file
        }
        lines = [f"ssl_{name}_file = '{file}'" for name, file in own.items()]
        demand = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n" if client_ca else ""
        self._reload(["ssl = on", *lines], demand + _HBA, own["cert"])

    def without_tls(self) -> None:
        """Speak no TLS any more."""
        self._reload([], _HBA, Path("server.crt"))

    def _own_copy(self, file: Path) -> Path:
        """A copy that belongs to the server: it takes no keys of others."""
        copy = Path(shutil.copy(file, self.directory))
        copy.chmod(0o600)
        return _given(copy)

    def _reload(self, lines: Sequence[str], rules: str, certificate: Path) -> None:
        (self._data / "postgresql.auto.conf").write_text("".join(f"{line}\n" for line in lines))
        (self._data / "pg_hba.conf").write_text(rules)
        self.execute("SELECT pg_reload_conf()")
        # The first session to show it may have been there before; the next one comes from a server that has all of it.
        for _ in range(2):
            wait_until(lambda: self.execute("SHOW ssl_cert_file") == [(str(certificate),)], START_TIMEOUT)

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _create(self) -> None:
        """Make the data directory, unless it is there from before."""
        if self._data.exists():
            return
        command = [*not_as_root(), str(postgres_programs() / "initdb"), "--pgdata", str(self._data)]
        command += ["--username", ADMIN, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.directory)
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in (*_SETTINGS, *self.settings))
        (self._data / "pg_hba.conf").write_text(_HBA)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        with self._log_file.open("wb") as log:
            return subprocess.Popen(
                # pdeathsig is lost when credentials change, so it comes after.
                [*not_as_root(), *die_with_parent(), str(postgres_programs() / "postgres"), *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Out of the terminal's process group: Ctrl-C is for the tests, which then stop their servers.
                start_new_session=True,
            )

    def _arguments(self, port: int) -> list[str]:
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}"]
        return ["-D", str(self._data), "-p", str(port), *listen]

    def _answers(self, port: int) -> bool:
        """Whether the process came up on this port; it is killed when it takes too long."""
        process = self._process
        assert process is not None
        try:
            wait_until(lambda: process.poll() is not None or _responds(port), START_TIMEOUT)
        except TimeoutError:
            process.kill()
            return False
        return process.poll() is None

    @property
    def _log_file(self) -> Path:
        return self.directory / "postgres.log"

    def _log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def _signal_all(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise RuntimeError("the server is down")
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # some of its helpers live for a moment only
                process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        end(self._process, number)


def _responds(port: int) -> bool:
    try:
        with psycopg.connect(f"postgresql://{ADMIN}@127.0.0.1:{port}/postgres", connect_timeout=2):
            return True
    except psycopg.Error:
        return False


def end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    """Send a signal to a process of ours and wait for its end; kill it when that takes too long."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT)


class PgBouncer:
    """A PgBouncer in transaction mode before a server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.port = free_port()
        self.directory = new_directory("pgbouncer")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        (self.directory / "users.txt").write_text(f'"{ADMIN}" ""\n')
        settings = self.directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 10\n"
            f"[users]\n"
        )
        settings.write_text(settings.read_text().replace("* = host", f"* = user={ADMIN} host"))
        self._process = subprocess.Popen(
            [*not_as_root(), *die_with_parent(), str(pgbouncer_program()), "-q", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        process = self._process
        wait_until(lambda: process.poll() is not None or _responds(self.port), START_TIMEOUT)
        if process.poll() is not None:
            raise RuntimeError("pgbouncer did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and delete its files."""
        end(self._process, signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def database_url(self, name: str) -> str:
        """The URL of a database through it."""
        return f"postgresql://{ADMIN}@127.0.0.1:{self.port}/{name}"
