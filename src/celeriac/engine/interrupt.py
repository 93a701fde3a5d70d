"""Raises an exception inside a running task."""

from __future__ import annotations

from celeriac.engine.consumer import Consumer
from celeriac.engine.runner import Runner
from celeriac.engine.thread_exception import raise_in


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
    with consumer.interrupting:
        for job, where in consumer.running():
            if job.delivery.tag == tag:
                job.interrupted = runner.interruption(job, reason, limit)
                if isinstance(where, int):
                    raise_in(where, type(job.interrupted))
                else:
                    where.get_loop().call_soon_threadsafe(where.cancel)
