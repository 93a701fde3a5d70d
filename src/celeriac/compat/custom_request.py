"""``Request`` classes of apps: Celery's hooks on what becomes of a task (``on_success``, ``on_failure``, ``on_timeout`` …).

In Celery these run in the worker's parent process and do the acknowledging and storing themselves.  Here the engine does that: the
methods that an app's own call with ``super()`` do nothing but call each other as Celery's do.  They run in the process that runs
the task, and in the supervisor for a task whose process is gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Retry
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request

logger = logging.getLogger("celery.worker.request")


class Inert(Request):
    """Stands between an app's class and Celery's."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The task starts."""
        self.worker_pid = pid
        self.time_start = time_accepted

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The task ran into a limit, in seconds."""

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> Any:
        """The task has ended, well or not: that is how Celery calls it."""
        failed, value, _ = failed__retval__runtime
        return self.on_failure(value, return_ok=True) if failed else None

    def on_retry(self, exc_info: Any) -> None:
        """The task is going to run again."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The task did not succeed."""
        if isinstance(exc_info.exception, Retry):
            self.on_retry(exc_info)

    def acknowledge(self) -> None:
        """The engine's business, like the others below."""

    def reject(self, requeue: bool = False) -> None:
        """See :meth:`acknowledge`."""

    def send_event(self, type: str, **fields: Any) -> None:
        """See :meth:`acknowledge`."""

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """See :meth:`acknowledge`."""


def request_class(task: Any) -> Any:
    """The class to make requests of a task of; ``None`` when it is Celery's own and nobody needs any."""
    kind = symbol_by_name(task.Request)
    return None if kind is Request else type(kind.__name__, (kind, Inert), {"__module__": kind.__module__})


def accepted(request: Any) -> None:
    """Say that the task starts."""
    _call(lambda: request.on_accepted(os.getpid(), time.time()))


def ended(request: Any, state: str, value: Any, runtime: float) -> None:
    """Say what came of a task: ``value`` is what it returned, or the exception."""
    failed = state != "SUCCESS"
    if failed and not isinstance(value, BaseException):
        return
    _call(lambda: request.on_success((failed, exception_info(value) if failed else value, runtime)))


def timed_out(request: Any, limit: float, *, soft: bool) -> None:
    """Say that the task ran into a limit, in seconds."""
    _call(lambda: request.on_timeout(soft, limit))


def lost(request: Any, error: BaseException) -> None:
    """Say that the task failed without having ended."""
    _call(lambda: request.on_failure(exception_info(error)))


def exception_info(error: BaseException) -> Any:
    """Billiard's description of an error, as it comes out of a pool: with the error itself."""
    if error.__traceback__ is None:  # it was never raised
        try:
            raise error
        except type(error):
            pass
    info = ExceptionInfo((type(error), error, error.__traceback__))
    info.exception = error
    return info


def _call(hook: Callable[[], Any]) -> None:
    try:
        hook()
    except Exception:
        logger.exception("A hook of a task's own Request class failed")
