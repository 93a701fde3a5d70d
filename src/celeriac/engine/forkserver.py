"""The process that forks slots.

It is forked from the supervisor when the app is loaded and before any thread is started, and has no threads itself, so
that forking is safe at any time.  It does two things: it forks a slot when the supervisor asks for one, and tells the
supervisor when one has ended.
"""

from __future__ import annotations

import array
import gc
import logging
import os
import pickle
import select
import signal
import socket
from dataclasses import replace
from typing import Any, NamedTuple

from celeriac.engine.slot import Node, Seat
from celeriac.engine.slot_process import die_with_parent, serve

logger = logging.getLogger("celeriac.engine")

FDS_PER_SEAT = 3


class Spawned(NamedTuple):
    """A slot's process was started."""

    slot: int
    pid: int


class Exited(NamedTuple):
    """A slot's process has ended."""

    slot: int
    pid: int
    status: int
    """Exit code; negative is the signal that killed it."""


class ForkServer:
    """The supervisor's end."""

    def __init__(self, node: Node) -> None:
        """Forks the fork server.  No thread may be running in this process yet."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self.socket.close()
            _run(node, theirs)
        theirs.close()

    def spawn(self, seat: Seat) -> None:
        """Ask for a slot.  Its ``Spawned`` comes over :attr:`socket`."""
        socket.send_fds(self.socket, [pickle.dumps(seat)], [seat.control, seat.bell, seat.ledger])

    def events(self) -> list[Spawned | Exited]:
        """What has happened; empty when the fork server is gone."""
        data = self.socket.recv(1 << 16)
        return pickle.loads(data) if data else []

    def stop(self) -> None:
        """End the fork server; its slots must have ended."""
        self.socket.close()
        os.waitpid(self.pid, 0)


def _run(node: Node, supervisor: socket.socket) -> None:
    """Serve until the supervisor closes its end or dies.  Never returns."""
    code = 1
    try:
        die_with_parent()
        gc.collect()
        gc.freeze()  # what is loaded now stays shared between the slots
        code = _Server(node, supervisor).serve()
    except Exception:
        logger.exception("The fork server failed")
    finally:
        os._exit(code)


class _Server:
    def __init__(self, node: Node, supervisor: socket.socket) -> None:
        self._node = node
        self._supervisor = supervisor
        self._slots: dict[int, int] = {}
        self._wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._wake, False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> int:
        while True:
            ready, _, _ = select.select([self._supervisor.fileno(), self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._supervisor.fileno() in ready and not self._spawn():
                return 0

    def _reap(self) -> None:
        exited = []
        while self._slots:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            slot = self._slots.pop(pid, None)
            if slot is not None:
                exited.append(Exited(slot, pid, os.waitstatus_to_exitcode(status)))
        if exited:
            self._tell(exited)

    def _tell(self, events: list[Any]) -> None:
        self._supervisor.send(pickle.dumps(events))

    def _spawn(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._supervisor, 1 << 16, FDS_PER_SEAT)
        if not data:
            return False
        seat: Seat = pickle.loads(data)
        control, bell, ledger = array.array("i", fds)
        self._node.runner.on_fork()
        pid = os.fork()
        if pid == 0:
            self._become_slot(replace(seat, control=control, bell=bell, ledger=ledger))
        for fd in (control, bell, ledger):
            os.close(fd)
        self._slots[pid] = seat.slot
        self._tell([Spawned(seat.slot, pid)])
        return True

    def _become_slot(self, seat: Seat) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._supervisor.close()
            code = serve(self._node, seat)
        finally:
            os._exit(code)
