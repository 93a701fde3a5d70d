"""A private RabbitMQ: a node of its own with its own cookie, port mapper and directories.

Usable outside pytest as well::

    with RabbitServer() as server, server.vhost() as url:
        print(url)
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tests.helpers import free_port, wait_until
from tests.servers import ServerMissing, die_with_parent

START_TIMEOUT = 90.0
"""Seconds.  It takes 5 on an idle machine."""
STOP_TIMEOUT = 20.0

PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
"""Where Debian has the program itself; the one on the path changes to the user ``rabbitmq`` first."""

USER = PASSWORD = "guest"

_SHELL = """
Loop = fun(Loop) ->
  case io:get_line("") of
    eof -> halt();
    Line ->
      Answer = try
        {ok, Tokens, _} = erl_scan:string(Line),
        {ok, Exprs} = erl_parse:parse_exprs(Tokens),
        case rpc:call('%NODE%', erl_eval, exprs, [Exprs, []]) of
          {value, Value, _} -> {ok, Value};
          Other -> {error, Other}
        end
      catch Class:Reason -> {error, {Class, Reason}} end,
      io:format("~0p~n", [Answer]),
      Loop(Loop)
  end
end,
Loop(Loop).
"""
"""Evaluates one Erlang expression a line on the server's node: many times faster than rabbitmqctl."""

_CLUSTER = """
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {}
"""


def rabbitmq_program() -> Path:
    """The server to use: ``RABBITMQ_SERVER`` if set, or the system's.

    Raises:
        ServerMissing: there is none.
    """
    candidates = [os.environ.get("RABBITMQ_SERVER"), *PROGRAMS, shutil.which("rabbitmq-server")]
    for found in candidates:
        if found and os.access(found, os.X_OK):
            return Path(found)
    raise ServerMissing("no RabbitMQ server; on Debian and Ubuntu: sudo apt-get install rabbitmq-server")


class RabbitServer:
    """One private node.

    Args:
        config: more lines for ``rabbitmq.conf``.
        schedulers: Erlang's threads; ``None``: one for each core.
        joins: a running node, to make one cluster with it.  It must outlive this one.
        plugins: names, with commas between them.
    """

    def __init__(
        self, *, config: str = "", schedulers: int | None = 1, joins: RabbitServer | None = None, plugins: str = ""
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.schedulers = schedulers
        self.joins = joins
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix="celeriac-rabbitmq-"))
        self.mapper, self._distribution = joins.mapper if joins else free_port(), free_port()
        self._vhosts = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: subprocess.Popen[str] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, on the same port as before if there was one, and wait until it answers.

        Raises:
            ServerMissing: no RabbitMQ on this machine.
            RuntimeError: it ended or did not answer; the text has its log.
        """
        self.port = self.port or free_port()
        self._prepare()
        self._start_mapper()
        log = self._log_path.open("wb")
        with log:
            self._process = subprocess.Popen(
                [*die_with_parent(), str(rabbitmq_program())], env=self._environment(), cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until(self._is_up, START_TIMEOUT, lambda: f"rabbitmq-server did not start:\n{self._log()}", 0.05)
        return self

    def _is_up(self) -> bool:
        if self.pid is None:
            raise RuntimeError(f"rabbitmq-server did not start:\n{self._log()}")
        return "Server startup complete" in self._log()

    def stop(self) -> None:
        """End it in order; what is persistent stays for the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as when the machine is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop and start on the same port."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Kill it and delete its files."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(STOP_TIMEOUT)
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
        """``amqp://guest:guest@127.0.0.1:<port>//``."""
        return self.vhost_url("/")

    def vhost_url(self, name: str) -> str:
        """The URL of a virtual host."""
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """The URL of a new virtual host, which goes when the block ends."""
        name = f"test{next(self._vhosts)}"
        self.eval(
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{USER}">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, '
            '<<"tests">>).'
        )
        try:
            yield self.vhost_url(name)
        finally:
            if self.pid is not None:
                self.eval(f'spawn(fun() -> rabbit_vhost:delete(<<"{name}">>, <<"tests">>) end).')

    def eval(self, expression: str) -> str:
        """Evaluate Erlang on the node; return its value as text.

        Raises:
            RuntimeError: it failed.
        """
        shell = self._shell
        if shell is None or shell.poll() is not None:
            shell = self._shell = self._open_shell()
        assert shell.stdin is not None and shell.stdout is not None  # noqa: PT018 - for the type checker
        shell.stdin.write(expression + "\n")
        shell.stdin.flush()
        answer = shell.stdout.readline().strip()
        if not answer.startswith("{ok,"):
            raise RuntimeError(f"{expression} gave {answer}")
        return answer[4:-1]

    def close_connections(self) -> None:
        """Have the server close all of its connections."""
        self.eval('[rabbit_networking:close_connection(Pid, "test") || Pid <- rabbit_networking:connections()].')

    def alarm(self, *, on: bool) -> None:
        """Set or clear the memory alarm: the server then takes no messages."""
        alarm = "{resource_limit, memory, node()}"
        self.eval(f"rabbit_alarm:set_alarm({{{alarm}, []}})." if on else f"rabbit_alarm:clear_alarm({alarm}).")

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def node(self) -> str:
        """Its name in a cluster."""
        return f"celeriac{self.port}@localhost"

    @property
    def _log_path(self) -> Path:
        return self.directory / "rabbitmq.log"

    def _log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def _prepare(self) -> None:
        for name in ("home", "mnesia", "log"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "plugins").write_text(f"[{self.plugins}].")
        config = self.config
        if self.joins is not None:
            config += _CLUSTER.format(self.joins.node)
            cookie = self.cookie_path
            if not cookie.exists():
                shutil.copy(self.joins.cookie_path, cookie)
        (self.directory / "rabbitmq.conf").write_text(config)

    @property
    def cookie_path(self) -> Path:
        """What nodes of one cluster have in common."""
        return self.directory / "home" / ".erlang.cookie"

    def _environment(self) -> dict[str, str]:
        directory = self.directory
        return {
            **os.environ,
            "HOME": str(directory / "home"),
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            # Has the script replace itself by the server, so that the process that we start is the one to kill.
            "RUNNING_UNDER_SYSTEMD": "true",
            # They do not spin: the tests share two cores with what they test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S {self.schedulers}:{self.schedulers} +sbwt none"
            if self.schedulers
            else "",
        }

    def _start_mapper(self) -> None:
        """Erlang's port mapper, which the node would start for good."""
        if self._epmd is None and self.joins is None:
            program = shutil.which("epmd")
            if program is None:
                raise ServerMissing(
                    "no epmd, which comes with Erlang; on Debian and Ubuntu: sudo apt-get install rabbitmq-server"
                )
            self._epmd = subprocess.Popen(
                [*die_with_parent(), program, "-port", str(self.mapper), "-address", "127.0.0.1"], cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _open_shell(self) -> subprocess.Popen[str]:
        name = f"shell{free_port()}@localhost"
        return subprocess.Popen(
            ["erl", "-noshell", "-hidden", "-sname", name, "-eval", _SHELL.replace("%NODE%", self.node)],
            env=self._environment(), cwd=self.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip

    def _end(self, number: signal.Signals) -> None:
        if self._shell is not None:
            self._shell.kill()
            self._shell.communicate()
            self._shell = None
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT)
