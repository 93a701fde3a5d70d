"""What a slot's process does before and after it serves its seat."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import signal
import sys

from celeriac.engine.slot import EXIT_FAILED, Node, Seat, Slot

logger = logging.getLogger("celeriac.engine")

PR_SET_PDEATHSIG = 1


def serve(node: Node, seat: Seat) -> int:
    """Serve one seat in this process, which was forked for it; return the exit code."""
    die_with_parent()
    multiprocessing.current_process().name = f"Slot-{seat.slot}"  # what log records show
    node.bus.after_fork()
    try:
        slot = Slot(node, seat)
        set_signals(slot)
        return slot.run()
    except Exception:
        logger.exception("Slot %d failed", seat.slot)
        return EXIT_FAILED
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however that happens.

    A node's slots must not outlive it: nobody would keep their leases alive, and others would run their tasks again.  Where
    the kernel has no such thing, the slot notices that its control socket is closed (see ``Slot._orphaned``).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def set_signals(slot: Slot) -> None:
    """Only the supervisor decides about a slot: a signal to the whole process group must not end its tasks.

    The handlers do nothing rather than being ``SIG_IGN``, which programs started by tasks would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: slot.interrupt_main())
