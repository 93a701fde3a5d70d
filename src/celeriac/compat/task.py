"""The base class of an app's tasks: Celery's, with a short way for the plain call."""

from __future__ import annotations

import os
from typing import Any

import celery
from celery import signals
from celery.app.routes import MapRoute
from celery.result import AsyncResult
from kombu.exceptions import EncodeError
from vine import promise

from celeriac.compat import connect, context, declaring, sending
from celeriac.compat.asending import asend
from celeriac.compat.long_work.work import Cursor, current_work, progress_of
from celeriac.compat.parcel_stencil import ParcelStencil
from celeriac.compat.patterns.payload import payload_of
from celeriac.compat.saferepr import quick_repr
from celeriac.compat.snapshot import snapshot
from celeriac.compat.stencil import Ids, Stencil, cut
from celeriac.policies.progress import Progress
from celeriac.telemetry.bus import bus


class _Process:
    """Tells a process from the one that it was forked from, for less than asking the kernel."""

    def __init__(self) -> None:
        self.forks = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.forks += 1


_process = _Process()
_ids = Ids()


class Result(AsyncResult):
    """Celery's result handle, made without its callbacks until somebody wants them."""

    def __init__(
        self, id: str, backend: Any = None, task_name: Any = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.app: Any = app or getattr(type(self), "app", None) or celery.current_app
        self.id = id
        self.backend = backend or self.app.backend
        self.parent = parent
        self._cache = None
        self._ignored = False

    def __del__(self) -> None:
        if "on_ready" in self.__dict__:  # whoever waits for it makes that first
            super().__del__()

    def __getattr__(self, name: str) -> Any:
        if name == "on_ready":
            self.on_ready = made = promise(self._on_fulfilled, weak=True)
            return made
        raise AttributeError(name)

    def progress(self) -> Progress | None:
        """What the task last said of itself; ``None`` when it has not, or not for an hour."""
        return progress_of(self.app, self.id)

    def cancel(self, grace: float = 10.0) -> None:
        """Cancel the task, wherever it is: see :meth:`celeriac.compat.control.client.Control.cancel`."""
        self.app.control.cancel(self.id, grace)


class Task(celery.Task):
    """A task that is sent the short way when it is called with nothing but arguments."""

    abstract = True
    _stencils: tuple[Any, int, Stencil | ParcelStencil | None] | None = None
    """The settings that it was made under, the process that it was made in (by the forks before it), and the stencil."""

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, producer: Any = None, link: Any = None,
        link_error: Any = None, shadow: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """See :meth:`celery.Task.apply_async`."""
        if not (options or producer or link or link_error or shadow):
            sent = self._send_plainly(args, kwargs, task_id)
            if sent is not None:
                return sent
        return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`delay`, without blocking the event loop while the broker answers or a full queue has no room."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """As :meth:`apply_async`, without blocking the event loop while the broker answers or a full queue has no room.

        It is sent in a thread of the loop's own; one that waits for room holds no thread meanwhile.
        """
        options.setdefault("task_id", _ids.next())
        return await asend(lambda: self.apply_async(args, kwargs, **options))

    def _send_plainly(self, args: Any, kwargs: Any, task_id: str | None) -> Any:
        """Send by a stencil; return ``None``, with nothing done, when that is not possible."""
        app = self._get_app()
        current = snapshot(app)
        if current.always_eager or _somebody_listens() or context.task_stack.top is not None:
            return None
        stencil = self._stencil(app, current)
        args, kwargs = args or (), kwargs or {}
        if stencil is None or type(args) not in (tuple, list) or type(kwargs) is not dict:
            return None
        argsrepr, kwargsrepr = quick_repr(args), quick_repr(kwargs) if kwargs else "{}"
        if argsrepr is None or kwargsrepr is None:
            return None
        if self.typing and "__header__" in type(self).__dict__:
            self.__header__(*args, **kwargs)
        # A new task's id is as unique as a delivery tag has to be; one that the caller chose may not be.
        tag = _ids.next()
        task_id = task_id or tag
        try:
            message = stencil.fill(task_id, tag, args, kwargs, argsrepr, kwargsrepr)
        except (TypeError, ValueError, RecursionError, EncodeError):
            return None
        sending.deliver_plainly(app, message, current)
        result = app.AsyncResult(task_id)
        if self.ignore_result:
            result.ignored = True
        return result

    def _stencil(self, app: Any, current: Any) -> Stencil | ParcelStencil | None:
        """The stencil under these settings: made at the first call, and anew when settings change."""
        found = type(self).__dict__.get("_stencils")
        if found is None or found[0] is not current or found[1] != _process.forks:
            usable = self._is_plain(current) and connect.scheme_of(connect.result_url(app) or "") != "rpc"
            type(self)._stencils = found = (current, _process.forks, cut(app, self) if usable else None)
        stencil: Stencil | ParcelStencil | None = found[2]
        return stencil

    def _is_plain(self, current: Any) -> bool:
        own = type(self)
        return (
            current.has_engine
            and all(isinstance(route, MapRoute) for route in self._get_app().amqp.routes)
            and current.protocol == 2
            and not current.sent_event
            and not current.compression
            and (self.serializer or current.serializer) == "json"
            and own.shadow_name is celery.Task.shadow_name
            and getattr(self, "_dump_pydantic_arguments", None) is None
            and not (self.soft_time_limit and self.time_limit and self.soft_time_limit > self.time_limit)
            and not self.expires
            and not declaring.changes_sending(self)
        )

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the task's arguments, as an object by their names.

        Raises:
            MissingExtra: there is no pydantic.
            ConfigurationError: an annotation that pydantic cannot use.
        """
        made: dict[str, Any] = payload_of(self).schema()
        return made

    # -- long work -------------------------------------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the running task is; ``AsyncResult.progress()`` and ``celeriac progress`` show it.

        A round trip at most twice a second, however often it is called.
        """
        current_work().progress(done, total, note)

    @property
    def cursor(self) -> Cursor:
        """Where the running task is in its work: see :class:`~celeriac.compat.long_work.work.Cursor`."""
        return current_work().cursor

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled or revoked the running task.  Costs nothing."""
        return current_work().is_cancelled()

    def check_cancelled(self) -> None:
        """Raise :class:`~celeriac.Cancelled` if somebody has cancelled or revoked the running task."""
        current_work().check_cancelled()

    def sending_options(self) -> dict[str, Any]:
        """The options of a call that is given none."""
        options = {name: value for name, value in self._get_exec_options().items() if value is not None}
        options.setdefault("ignore_result", self.ignore_result)
        return options


def _somebody_listens() -> bool:
    return bool(
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or bus.listening
    )
