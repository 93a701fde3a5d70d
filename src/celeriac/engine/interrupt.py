"""Raises an exception inside a running task."""

from __future__ import annotations

import ctypes
import threading

from celeriac.engine.consumer import Consumer
from celeriac.engine.runner import Runner


def interrupt(consumer: Consumer, runner: Runner, tag: int, reason: str, limit: float) -> None:
    """Make the body of one running job raise, wherever it runs.

    A thread gets the exception at its next bytecode, so not while it is inside a call that blocks.  A coroutine gets it at
    the ``await`` that it is in.

    Args:
        consumer: the one that runs the job.
        runner: knows the exception.
        tag: of the job's delivery; nothing happens when it has ended.
        reason: ``"soft"``, ``"hard"`` or ``"terminate"``.
        limit: the time limit in seconds, for the message.
    """
    for job, where in consumer.running():
        if job.delivery.tag == tag:
            job.interrupted = runner.interruption(job, reason, limit)
            if isinstance(where, int):
                raise_in_thread(where, type(job.interrupted))
            else:
                where.get_loop().call_soon_threadsafe(where.cancel)


def raise_in_thread(ident: int, kind: type[BaseException]) -> None:
    """Raise an exception of this class in another thread (``PyThreadState_SetAsyncExc`` of CPython)."""
    if ident == threading.get_ident():
        raise kind
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))
