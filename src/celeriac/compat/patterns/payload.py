"""Typed payloads: ``payload``, ``payload_version``, ``payload_upgrade`` (:mod:`celeriac.policies.payload`).

A task with a model or a dataclass in its signature has typed payloads by default (with :class:`celeriac.Celery`); any other task
when it says ``payload=True``.  What a task needs for it is put onto the task object itself, so that it works in a direct call and in
eager mode, too.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_args, get_type_hints

from celeriac.compat.collect import current_collector
from celeriac.compat.guarding import Decoded
from celeriac.compat.jobs import is_coroutine_task
from celeriac.compat.patterns.pattern import Pattern
from celeriac.errors import ConfigurationError, InvalidPayload, MissingExtra
from celeriac.policy import Policy

VERSION_HEADER = "celeriac-payload"
PLAN = "celeriac_payload"
"""Attribute of a task object: its :class:`~celeriac.policies.payload.Payload`; absent or ``None`` without typed payloads."""

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class PayloadPattern(Pattern):
    """Arguments checked by the signature, where they are sent and where they arrive."""

    options: ClassVar[Mapping[str, str]] = {
        "payload": "whether arguments are checked and converted by the task's annotations",
        "payload_version": "version of the payload that this code sends (default 1)",
        "payload_upgrade": "makes the arguments of an older version those of this one",
    }

    def is_used(self, task: Any) -> bool:
        """See :meth:`Pattern.is_used`; also a task whose signature asks for it."""
        return getattr(task, PLAN, None) is not None or super().is_used(task) or _is_default(task)

    def check(self, task: Any) -> None:
        """See :meth:`Pattern.check`."""
        payload = getattr(task, "payload", None)
        if payload not in (None, True, False):
            raise ConfigurationError(f"Task {task.name}: payload is {payload!r}; it is True or False")
        if payload and getattr(task, "_dump_pydantic_arguments", None) is not None:
            raise ConfigurationError(
                f"Task {task.name}: payload=True and Celery's pydantic=True are two ways of one thing; drop one"
            )
        version, upgrade = getattr(task, "payload_version", None), getattr(task, "payload_upgrade", None)
        if version is not None and (type(version) is not int or version < 1):
            raise ConfigurationError(
                f"Task {task.name}: payload_version is {version!r}; it is a whole number from 1 on"
            )
        if upgrade is not None and not callable(upgrade):
            raise ConfigurationError(
                f"Task {task.name}: payload_upgrade is called as upgrade(version, args, kwargs), and {upgrade!r} cannot be"
            )
        if upgrade is not None and (version or 1) < 2:
            raise ConfigurationError(
                f"Task {task.name}: payload_upgrade needs payload_version=2 or more, or no message is ever older"
            )
        if (version or upgrade) and not _is_wanted(task):
            raise ConfigurationError(f"Task {task.name}: payload_version needs typed payloads: add payload=True")

    def install(self, task: Any) -> None:
        """See :meth:`Pattern.install`."""
        if getattr(task, PLAN, None) is not None or not _is_wanted(task):
            return
        payload = payload_of(task)
        setattr(task, PLAN, payload)
        task.schema = payload.schema
        task.apply_async = _checked_sending(task, payload)
        task.signature = task.subtask = _plain_signatures(task, payload)
        task.run = _decoding(task, payload)

    def policy(self, app: Any, task: Any) -> Policy | None:
        """See :meth:`Pattern.policy`."""
        payload = getattr(task, PLAN, None)
        if payload is None:
            return None
        from celeriac.policies.payload import PayloadPolicy

        return PayloadPolicy(payload)


# -- what a task wants ------------------------------------------------------------------------------------------------


def _is_wanted(task: Any) -> bool:
    asked = getattr(task, "payload", None)
    return _is_default(task) if asked is None else bool(asked)


def _is_default(task: Any) -> bool:
    """Whether a task that does not say has typed payloads."""
    if task.name.startswith("celery.") or not _annotations(task) or getattr(task, "_dump_pydantic_arguments", None):
        return False
    app = task._get_app()
    setting = app.conf.get("celeriac_validate_payloads")
    if setting is not None:
        return bool(setting) and bool(_hints(task, strict=False))
    # Not in an app that was written for Celery, and not where models travel as they are.
    usual = getattr(app, "embedded", False) and (task.serializer or app.conf.task_serializer) != "pickle"
    if not usual or importlib.util.find_spec("pydantic") is None:
        return False
    return any(_has_model(hint) for name, hint in _hints(task, strict=False).items() if name != "return")


def _annotations(task: Any) -> Any:
    return getattr(_body(task), "__annotations__", None)


def _has_model(hint: Any) -> bool:
    if isinstance(hint, type) and not get_args(hint):
        pydantic = sys.modules.get("pydantic")
        return dataclasses.is_dataclass(hint) or (pydantic is not None and issubclass(hint, pydantic.BaseModel))
    return any(_has_model(part) for part in get_args(hint))


def _body(task: Any) -> Any:
    """The function that was declared, under whatever wraps it."""
    found = inspect.unwrap(getattr(task, "_orig_run", None) or task.run)
    return getattr(found, "__func__", found)


def _hints(task: Any, *, strict: bool) -> dict[str, Any]:
    """The resolved annotations of a task's body.

    Raises:
        ConfigurationError: one cannot be resolved, with ``strict``; without, there are none then.
    """
    if not _annotations(task):
        return {}
    try:
        return get_type_hints(_body(task), include_extras=True)
    except Exception as error:
        if not strict:
            return {}
        raise ConfigurationError(
            f"Task {task.name}: an annotation cannot be resolved when the program runs ({error}); import its name for real"
        ) from error


def payload_of(task: Any) -> Any:
    """How a task's arguments travel, typed payloads or not.

    Raises:
        MissingExtra: there is no pydantic.
        ConfigurationError: annotations that cannot be used.
    """
    if importlib.util.find_spec("pydantic") is None:
        raise MissingExtra(f"Checking the payloads of task {task.name}", "pydantic")
    from celeriac.policies.payload import Payload

    return Payload(
        task.name, inspect.signature(task.run), _hints(task, strict=True),
        version=getattr(task, "payload_version", None) or 1, upgrade=_upgrade_of(task),
    )  # fmt: skip


def _upgrade_of(task: Any) -> Any:
    # From the class, where it is a plain function: from the object it would be a method.
    found = inspect.getattr_static(task, "payload_upgrade", None)
    return getattr(found, "__func__", found)


# -- sending ----------------------------------------------------------------------------------------------------------


def outgoing(payload: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Arguments and sending options of a task that is about to be sent, as they travel.

    A signature states its version: one of another version than this code's is for its worker to judge.

    Args:
        payload: the task's.
        args: as given.
        kwargs: as given.
        options: as given.

    Raises:
        InvalidPayload: they do not fit.
    """
    headers = options.get("headers") or {}
    stated = headers.get(VERSION_HEADER)
    if stated is not None and stated != payload.version:
        return args, kwargs, options
    if stated is None and payload.version != 1:
        options = {**options, "headers": {**headers, VERSION_HEADER: payload.version}}
    return *_encoded(payload, args, kwargs), options


def _encoded(payload: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """What follows an outcome (the next link of a chain) is not refused here, where nobody could be told: its worker does it."""
    try:
        return payload.encode(args, kwargs)
    except InvalidPayload:
        if current_collector() is None:
            raise
    return _plainly(args, kwargs)


def _plainly(args: Any, kwargs: Any) -> tuple[Any, Any]:
    from celeriac.policies.payload import plain

    return tuple(plain(each) for each in args or ()), {name: plain(value) for name, value in (kwargs or {}).items()}


def _checked_sending(task: Any, payload: Any) -> Callable[..., Any]:
    send = task.apply_async

    @functools.wraps(send)
    def apply_async(args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        args, kwargs, options = outgoing(payload, args, kwargs, options)
        return send(args, kwargs, *rest, **options)

    return apply_async


def _plain_signatures(task: Any, payload: Any) -> Callable[..., Any]:
    """A signature waits in another task's message: its arguments are made plain, and it states their version.  It is checked
    when it is sent, with the parent's result in its place.
    """
    make = task.signature

    @functools.wraps(make)
    def signature(args: Any = None, kwargs: Any = None, options: Any = None, *rest: Any, **more: Any) -> Any:
        options = dict(options or {})
        headers = dict(options.get("headers") or {})
        headers[VERSION_HEADER] = _version_of_signature(task, payload, args, kwargs, options)
        options["headers"] = headers
        return make(*_plainly(args, kwargs), options, *rest, **more)

    return signature


def _version_of_signature(task: Any, payload: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> int:
    """This code's, but for a retry that sends again what it was sent."""
    request = task.request
    is_retry = request.id is not None and options.get("task_id") == request.id
    if is_retry and args is request.args and kwargs is request.kwargs:
        from celeriac.policies.payload import version_in

        return version_in(request.__dict__)
    return int(payload.version)


# -- running ----------------------------------------------------------------------------------------------------------


def _decoding(task: Any, payload: Any) -> Callable[..., Any]:
    """The body with its arguments decoded and its result encoded."""
    body = task.run

    def decoded(args: Any, kwargs: Any) -> tuple[Any, Any]:
        ready = task.request.__dict__.get("decoded")
        if isinstance(ready, Decoded) and _same(ready.sent_args, args) and _same_named(ready.sent_kwargs, kwargs):
            return ready.args, ready.kwargs
        return payload.receive(args, kwargs, _running_version(task, payload))

    def encoded(value: Any) -> Any:
        return value if task.request.called_directly else payload.encode_result(value)

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = decoded(args, kwargs)
        return encoded(body(*args, **kwargs))

    @functools.wraps(body)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = decoded(args, kwargs)
        return encoded(await body(*args, **kwargs))

    return run_async if is_coroutine_task(task) else run


def _running_version(task: Any, payload: Any) -> int:
    request = task.request
    if request.called_directly or request.is_eager:
        return int(payload.version)
    from celeriac.policies.payload import version_in

    return version_in(request.__dict__)


def _same(sent: Any, given: Any) -> bool:
    """Whether these are the same objects: a task with a ``__call__`` of its own may have put others in their place."""
    return len(sent) == len(given) and all(one is other for one, other in zip(sent, given, strict=True))


def _same_named(sent: Any, given: Any) -> bool:
    return len(sent) == len(given) and all(name in given and given[name] is value for name, value in sent.items())
