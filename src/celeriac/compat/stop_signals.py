"""Signals to a worker, as Celery understands them.

========== =====================================================================
SIGTERM    warm shutdown: running tasks finish (with ``REMAP_SIGTERM=SIGQUIT``: as SIGQUIT)
SIGINT     warm shutdown; a second one is a cold one
SIGQUIT    cold shutdown, after ``worker_soft_shutdown_timeout`` if that is set
SIGHUP     restart, unless attached to a terminal
========== =====================================================================
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any

from celery import signals

from celeriac.engine.supervisor import Shutdown


def install_stop_signals(worker: Any) -> None:
    """Handle signals in this process, which must be its main thread."""
    asked = {"interrupted": False}

    def shut_down(how: Shutdown, name: str) -> None:
        words = "Warm" if how is Shutdown.WARM else "Cold"
        _say(f"worker: {words} shutdown (MainProcess)")
        signals.worker_shutting_down.send(sender=worker.hostname, sig=name, how=words, exitcode=0)
        worker.supervisor.stop(how)

    def on_quit(name: str) -> None:
        seconds = worker.options.engine.soft_shutdown_seconds
        if worker.supervisor.stopping is Shutdown.SOFT:
            _say("Waiting gracefully for cold shutdown to complete...")
        elif seconds > 0 and worker.supervisor.stopping is not Shutdown.COLD:
            _say(f"Initiating Soft Shutdown, terminating in {seconds:g} seconds")
            shut_down(Shutdown.SOFT, name)
            return
        shut_down(Shutdown.COLD, name)

    def on_term(*_: Any) -> None:
        if os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
            on_quit("SIGTERM")
        else:
            shut_down(Shutdown.WARM, "SIGTERM")

    def on_int(*_: Any) -> None:
        if asked["interrupted"]:
            on_quit("SIGINT")
            return
        asked["interrupted"] = True
        _say("worker: Hitting Ctrl+C again will terminate all running tasks!")
        shut_down(Shutdown.WARM, "SIGINT")

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, on_int)
    signal.signal(signal.SIGQUIT, lambda *_: on_quit("SIGQUIT"))
    if not sys.stdout or not sys.stdout.isatty():
        signal.signal(signal.SIGHUP, lambda *_: _restart(worker))


def _restart(worker: Any) -> None:
    """Stop warmly, and then become a new worker with the same command line."""
    atexit.register(os.execv, sys.executable, [sys.executable, *sys.argv])
    worker.supervisor.stop(Shutdown.WARM)


def _say(text: str) -> None:
    """Print from a signal handler, where a buffered stream must not be used."""
    if sys.__stdout__ is not None:
        os.write(sys.__stdout__.fileno(), f"\n{text}\n".encode())
