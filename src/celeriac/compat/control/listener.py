"""Hears what is sent to the workers' mailbox, and answers."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from kombu.utils.encoding import safe_str

from celeriac.compat.control.commands import Commands
from celeriac.compat.control.facade import State
from celeriac.engine.supervisor import Shutdown

logger = logging.getLogger("celery.worker.pidbox")

WAIT_SECONDS = 1.0
"""Longest single wait, so that stopping does not take longer."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
"""Seconds between tries to reach a broker that is away."""


class RemoteControl:
    """Answers the app's control mailbox, in a thread of its own.  A broker that is away does it no harm."""

    def __init__(self, state: State, wait: float = WAIT_SECONDS) -> None:
        """``wait``: seconds of one wait for a command."""
        self._state = state
        self._wait = wait
        self._ended = threading.Event()
        self._failures = 0
        self._heard = False
        self._thread = threading.Thread(target=self._run, name="celeriac-control", daemon=True)
        self._node = state.app.control.mailbox.Node(
            safe_str(state.hostname), handlers=Commands(), state=state
        )  # fmt: skip

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, once the command that is being answered is."""
        self.end()
        self._thread.join(2 * WAIT_SECONDS)

    def end(self) -> None:
        """Have the thread end, without waiting for it."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except Exception as error:
                self._pause(error)

    def _pause(self, error: Exception) -> None:
        level = logging.DEBUG if self._failures else logging.WARNING
        logger.log(level, "Remote control does not hear the broker (%s). Trying again", error)
        self._ended.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10)))
        self._failures += 1

    def _listen(self) -> None:
        """Serve one connection until it breaks."""
        with self._state.app.connection_for_read() as connection:
            self._node.channel = connection.channel()
            self._node.listen(callback=self._on_message)
            if not self._heard:
                self._heard = True
                self._node.channel.queue_purge(self._mailbox)  # what was meant for an earlier worker of this name
            if self._failures:
                logger.warning("Remote control hears the broker again")
            self._failures = 0
            while not self._ended.is_set():
                with suppress(socket.timeout):
                    connection.drain_events(timeout=self._wait)
            self._node.channel.queue_delete(self._mailbox)

    @property
    def _mailbox(self) -> str:
        name: str = self._node.mailbox.get_queue(self._node.hostname).name
        return name

    def _on_message(self, body: Any, message: Any) -> None:
        state = self._state
        state.app.clock.forward()
        try:
            self._node.handle_message(body, message)
        except WorkerTerminate:
            state.supervisor.stop(Shutdown.COLD)
        except WorkerShutdown:
            state.supervisor.stop(Shutdown.WARM)
        except Exception:
            # The reply may not have reached a broker that is away: that is for the loop around this to mend.
            logger.exception("Control command error")
