"""How slots come to life: in processes of their own, or in this one (``solo``)."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from celeriac.engine.forkserver import Exited, Spawned
from celeriac.engine.slot import EXIT_FAILED, Node, Seat, Slot, close_all

logger = logging.getLogger("celeriac.engine")


class Launcher(Protocol):
    """Starts slots and tells of their ends."""

    socket: socket.socket
    """Readable when there are :meth:`events`."""

    def spawn(self, seat: Seat) -> None:
        """Start a slot."""

    def events(self) -> Sequence[Spawned | Exited]:
        """What has happened; empty when the launcher is gone."""

    def stop(self) -> None:
        """Give up; all slots have ended."""


class SoloLauncher:
    """Runs one slot at a time in this process, in the thread that calls :meth:`serve`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.socket, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._seats_r, self._seats_w = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def spawn(self, seat: Seat) -> None:
        """See :meth:`Launcher.spawn`.  The supervisor closes its copies of the file descriptors, so the slot gets its own."""
        own = replace(seat, control=os.dup(seat.control), bell=os.dup(seat.bell), ledger=os.dup(seat.ledger))
        self._seats_w.send(pickle.dumps(own))
        self._tell(Spawned(seat.slot, os.getpid()))

    def events(self) -> Sequence[Spawned | Exited]:
        """See :meth:`Launcher.events`."""
        data = self.socket.recv(1 << 16)
        return pickle.loads(data) if data else []

    def _tell(self, event: Spawned | Exited) -> None:
        self._ours.send(pickle.dumps([event]))

    def serve(self) -> None:
        """Run slots in this thread until the supervisor has stopped."""
        while data := self._seats_r.recv(1 << 16):
            seat: Seat = pickle.loads(data)
            self._tell(Exited(seat.slot, os.getpid(), self._run(seat)))
        for each in (self._seats_r, self._ours, self.socket):
            each.close()

    def _run(self, seat: Seat) -> int:
        try:
            slot = Slot(self._node, seat)
            if not self._node.settings.embedded:
                signal.signal(signal.SIGUSR1, lambda *_, slot=slot: slot.interrupt_main())
            return slot.run()
        except Exception:
            logger.exception("Slot %d failed", seat.slot)
            return EXIT_FAILED
        finally:
            close_all((seat.bell, seat.ledger))

    def stop(self) -> None:
        """See :meth:`Launcher.stop`."""
        self._seats_w.close()
