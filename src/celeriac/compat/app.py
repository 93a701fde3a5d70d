"""The app: ``celery.Celery`` with Celeriac's send path, result store and worker."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, TypeVar, cast

import celery
from celery.backends.rpc import RPCBackend
from celery.utils.functional import maybe_list
from celery.utils.time import maybe_iso8601
from kombu.utils.uuid import uuid

from celeriac.compat import connect, declaring, sending, uniqueness
from celeriac.compat.choosing import serve_tests
from celeriac.compat.dead import DeadLetters
from celeriac.compat.kombu_waits import bounded
from celeriac.compat.patterns import payload as typed_payloads
from celeriac.compat.patterns.idempotency import check_call
from celeriac.compat.saferepr import quick_repr
from celeriac.compat.snapshot import snapshot, watch
from celeriac.compat.stores import result_class
from celeriac.compat.task import Result
from celeriac.errors import ConfigurationError

OMITTED: Any = object()

TASK_CLASSES: dict[Any, str] = {
    "celery.app.task:Task": "celeriac.compat.task:Task",
    "celery.contrib.django.task:DjangoTask": "celeriac.compat.django_task:DjangoTask",
}
"""What stands in for Celery's base classes of tasks.  Celery itself chooses the second in a Django project, for an app that
brings none of its own, which is why this is no attribute of the class."""


class Celery(celery.Celery):
    """A Celery app that sends through Celeriac and whose worker is Celeriac's.

    Without a broker it uses the embedded default: the file ``celeriac.sqlite3`` in the current directory, for queue and
    results, safe for many processes.
    """

    task_cls: Any
    control_cls = "celeriac.compat.control.client:Control"
    embedded = True
    """Whether the embedded default applies.  Not to apps that were upgraded: for them no broker means Celery's default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen: Any = self.task_cls
        self.task_cls = TASK_CLASSES.get(chosen, chosen)

    def set_default(self) -> None:
        """As Celery's.  (Celery's helpers for tests call this before they make a worker.)"""
        super().set_default()
        serve_tests()

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _task_from_fun(self, fun: Any, name: Any = None, base: Any = None, bind: bool = False, **options: Any) -> Any:
        """As Celery's, with the options that Celery does not have checked.  Raises ``ConfigurationError``."""
        is_new = (name or self.gen_task_name(fun.__name__, fun.__module__)) not in self._tasks
        task = super()._task_from_fun(fun, name=name, base=base, bind=bind, **options)
        if is_new:
            declaring.check_task(task, options)
        return task

    def register_task(self, task: Any, **options: Any) -> Any:
        """As Celery's, for a task that is a class, with the options that Celery does not have checked."""
        task = super().register_task(task, **options)
        declaring.check_task(task, declaring.own_attributes(task))
        return task

    # -- sending ---------------------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        expires: Any = OMITTED,
        publisher: Any = None,
        link: Any = None,
        link_error: Any = None,
        add_to_parent: bool = True,
        group_id: str | None = None,
        group_index: int | None = None,
        retries: int = 0,
        chord: Any = None,
        reply_to: str | None = None,
        time_limit: Any = OMITTED,
        soft_time_limit: Any = OMITTED,
        root_id: str | None = None,
        parent_id: str | None = None,
        route_name: str | None = None,
        shadow: str | None = None,
        chain: Any = None,
        task_type: Any = None,
        replaced_task_nesting: int = 0,
        **options: Any,
    ) -> Any:
        """Send a task by name, as :meth:`celery.Celery.send_task` does, in one round trip.

        Raises:
            kombu.exceptions.OperationalError: the broker could not be reached, or has no room.
            QueueFull: the queue has reached its maximum length (also an ``OperationalError``).
            kombu.exceptions.EncodeError: the arguments cannot be serialised.
            NotUnique: an equal task is on its way, and the task asks for this error.
        """
        if task_type is None:
            args, kwargs, options = self._typed(name, args, kwargs, options)
        task_id = task_id or uuid()
        settings = snapshot(self)
        options = self._execution_options(name, task_type, options)
        time_limit = _given(time_limit, options, "time_limit")
        soft_time_limit = _given(soft_time_limit, options, "soft_time_limit")
        expires = _given(expires, options, "expires")
        ignore_result = options.pop("ignore_result", None)
        task_type = task_type or self._tasks.get(name)
        options = (router or self.amqp.router).route(options, route_name or name, args, kwargs, task_type)
        check_call(task_type, args, kwargs)
        unique = uniqueness.options_of(task_type)
        if unique is not None and unique.delay is not None and countdown is None and eta is None:
            countdown = unique.delay
        if expires is not None:
            options["expiration"] = self._seconds_left(expires)
        parent = self.current_worker_task
        if parent:
            root_id = root_id or parent.request.root_id or parent.request.id
            parent_id = parent_id or parent.request.id
            if settings.inherit_priority:
                options.setdefault("priority", (parent.request.delivery_info or {}).get("priority"))
        message = self.amqp.create_task_message(
            task_id, name, args, kwargs, countdown, eta, group_id, group_index, expires, retries, chord,
            maybe_list(link), maybe_list(link_error), reply_to or self.thread_oid, time_limit, soft_time_limit,
            settings.sent_event, root_id, parent_id, shadow, chain, ignore_result=ignore_result,
            replaced_task_nesting=replaced_task_nesting, **_with_reprs(args, kwargs, options),
        )  # fmt: skip
        for stamp in options.pop("stamped_headers", None) or ():
            options.pop(stamp)
        if not ignore_result:
            self._announce_call(producer, task_id)
        ticket = None if unique is None else self._ticket(task_type, unique, message, options, parent)
        sending.send(self, name, message, options, ticket)
        result = (result_cls or self.AsyncResult)(task_id if ticket is None else ticket.task_id)
        if ticket is not None:
            ticket.results.append(result)
        result.ignored = ignore_result
        if add_to_parent and parent:
            parent.add_trail(result)
        return result

    def _announce_call(self, producer: Any, task_id: str) -> None:
        """Celery's ``rpc://`` declares its reply queue here, and needs a real producer for that."""
        backend = self.backend
        if isinstance(backend, RPCBackend) and not hasattr(producer, "channel"):
            with self.kombu_producer() as real:
                backend.on_task_call(real, task_id)
        else:
            backend.on_task_call(producer, task_id)

    def _ticket(
        self, task: Any, unique: Any, message: Any, options: dict[str, Any], parent: Any
    ) -> uniqueness.Ticket | None:
        """For a unique task's message: what claims its key, and learns whose it is."""
        due = sending.due_at(self, message.headers.get("eta"))
        serializer = options.get("serializer") or snapshot(self).serializer
        return uniqueness.ticket_for(task, unique, message, due, serializer, parent)

    def _typed(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Arguments and options of a task that is sent by name, checked if its payload is known here to be typed."""
        payload = getattr(self._tasks.get(name), "celeriac_payload", None)
        return (args, kwargs, options) if payload is None else typed_payloads.outgoing(payload, args, kwargs, options)

    def _execution_options(self, name: str, task_type: Any, options: dict[str, Any]) -> dict[str, Any]:
        """The task's own options under those of the call, for a task that is sent by name but known here."""
        known = self._tasks.get(name) if task_type is None else None
        if known is None or not inspect.ismethod(getattr(known, "_get_exec_options", None)):
            return options
        own = {key: value for key, value in known._get_exec_options().items() if value is not None}
        return {**own, **options}

    def _seconds_left(self, expires: Any) -> float:
        moment = maybe_iso8601(expires) if isinstance(expires, str) else expires
        if hasattr(moment, "timestamp"):
            due = sending.due_at(self, moment)
            assert due is not None
            return max(0.0, due - self.now().timestamp())
        return max(0.0, float(moment))

    def batch(self, **options: Any) -> AbstractContextManager[sending.Batch]:
        """Send everything that is sent inside the block in one round trip, when the block ends::

            with app.batch():
                for user in users:
                    welcome.delay(user.id)

        If the block raises, nothing is sent.  Results can be waited for after the block.

        Args:
            options: ``queue_full``, ``queue_full_timeout`` and ``publish_timeout``, as ``apply_async`` has them.

        Raises:
            kombu.exceptions.OperationalError: on leaving the block; nothing is known to have been sent.
            QueueFull: likewise; none of them was sent.
        """
        return sending.batch(self, **options)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """What Celery's canvas sends a group through: all of it in one round trip, unless it comes slowly out of a generator."""
        if producer is not None:
            return super().producer_or_acquire(producer)
        return _GroupProducer(self)

    producer_or_connection = producer_or_acquire

    @contextmanager
    def kombu_producer(self) -> Iterator[Any]:
        """A producer of kombu's, for what does not go to one queue."""
        with super().producer_or_acquire() as producer:
            yield producer

    def _load_config(self) -> Any:
        conf = super()._load_config()
        if (
            self.embedded
        ):  # in the last of the maps: whatever names a broker, a configuration module too, comes before it
            conf.maps[-1]["broker_url"] = connect.EMBEDDED_URL
        watch(conf)
        return conf

    def _connection(self, url: Any, *args: Any, transport_options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        given = {**self.conf.broker_transport_options, **(transport_options or {})}
        more = bounded(connect.scheme_of(connect.broker_url(self)), given)
        return super()._connection(url, *args, transport_options={**more, **(transport_options or {})}, **kwargs)

    # -- results and worker ----------------------------------------------------------------------------------------

    def _get_backend(self) -> Any:
        url = connect.result_url(self)
        found = result_class(connect.scheme_of(url)) if url else None
        if found is not None:
            return found(app=self, url=url)
        try:
            return super()._get_backend()
        except ImportError as error:
            raise ConfigurationError(
                f"There is no result store for {connect.scheme_of(str(url))!r}, or what it needs is not installed ({error}): "
                "see Celery's result_backend, and pip install 'celery[…]' with the store's name"
            ) from error

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the app's broker: to list, get, edit, replay and discard."""
        return DeadLetters(self)

    @cached_property
    def AsyncResult(self) -> Any:
        """The class of result handles, bound to this app."""
        return self.subclass_with_self(Result, name="AsyncResult")

    @cached_property
    def GroupResult(self) -> Any:
        """The class of groups' result handles, bound to this app."""
        return self.subclass_with_self(uniqueness.GroupResult, name="GroupResult")

    @property
    def Worker(self) -> Any:
        """The worker's class, bound to this app."""
        from celeriac.compat.worker import Worker

        return self.subclass_with_self(Worker, name="Worker")


class _GroupProducer:
    """Stands for kombu's producer where Celery only holds one: opens a batch while it is held."""

    serializer = None
    auto_declare = False

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._batch: AbstractContextManager[sending.Batch] | None = None

    @property
    def connection(self) -> _GroupProducer:
        return self

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def __enter__(self) -> _GroupProducer:
        self._batch = sending.batch(self._app, sending.GROUP_SECONDS)
        self._batch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._batch is not None
        self._batch.__exit__(kind, error, traceback)


def _given(value: Any, options: dict[str, Any], name: str) -> Any:
    """An argument if it was given, else the option of the same name."""
    fallback = options.pop(name, None)
    return fallback if value is OMITTED else value


def _with_reprs(args: Any, kwargs: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Celery's own representation of arguments is slow; simple ones need not go through it."""
    if "argsrepr" in options and "kwargsrepr" in options:
        return options
    reprs = {"argsrepr": quick_repr(args or ()), "kwargsrepr": quick_repr(kwargs or {})}
    return {**{name: text for name, text in reprs.items() if text is not None}, **options}


App = TypeVar("App", bound=celery.Celery)


def upgrade(app: App) -> App:
    """Give an existing app object Celeriac's send path, result store and worker, in place; return it.

    Raises:
        TypeError: it is not a Celery app.
    """
    instance = app._get_current_object() if hasattr(app, "_get_current_object") else app
    if not isinstance(instance, celery.Celery):
        raise TypeError(f"upgrade() takes a celery.Celery app, not {type(app).__name__}")
    if not isinstance(instance, Celery):
        kind = type(instance)
        members = {"embedded": False, "__module__": kind.__module__}
        bases = (Celery,) if kind is celery.Celery else (Celery, kind)
        instance.__class__ = type(kind.__name__, bases, members)
        instance.__dict__.pop("Worker", None)
        instance._backend_cache = None
        instance._local.__dict__.pop("backend", None)
    return cast("App", instance)
