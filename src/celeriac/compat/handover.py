"""Pools that the engine does not have (gevent, eventlet, classes of others): Celery's own worker serves the app's queues with them.

What it runs is Celery's; the app and its senders stay ours.  So it does in Celery's place what our senders rely on (messages that
are not due are moved into their queues), and refuses the tasks that ask for what only the engine does.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import celery
from celery.apps.worker import Worker as CelerysWorker
from celery.concurrency import get_implementation

from celeriac.compat import connect, connect_postgres, declaring
from celeriac.compat.jobs import is_coroutine_task
from celeriac.compat.options import CELERY_POOL_CLASSES
from celeriac.compat.sending import resolve
from celeriac.engine.loop import Loop
from celeriac.engine.scheduler import Scheduler
from celeriac.engine.subscription import Subscription
from celeriac.errors import ConfigurationError
from celeriac.telemetry.bus import bus

logger = logging.getLogger("celery.worker")

GREEN = ("gevent", "eventlet")
"""Pools that take Python's own modules to be changed before anything else is imported."""

OURS_ONLY = frozenset({"sqlite", *connect_postgres.SCHEMES})
"""Schemes of brokers that only the engine takes tasks from."""

_PATCHED_FIRST = """
import sys
sys.argv = sys.argv[1:]
from celery import maybe_patch_concurrency
maybe_patch_concurrency()
from celeriac.cli.main import main
sys.exit(main())
"""


def patch_first() -> None:
    """Where the command line asks for a pool that changes Python's modules, become a process in which that comes first."""
    if _asked_for(sys.argv) in GREEN and not is_patched():
        os.execv(sys.executable, [sys.executable, "-c", _PATCHED_FIRST, *sys.argv])  # noqa: S606 - this very program


def _asked_for(words: list[str]) -> str | None:
    if "multi" in words:  # it only starts others
        return None
    try:
        found: str = celery._find_option_with_arg(words, ["-P"], ["--pool"])
    except KeyError:
        return None
    return found


def is_patched() -> bool:
    """Whether Python's modules have been changed for one of these pools."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool((gevent and gevent.is_module_patched("socket")) or (eventlet and eventlet.is_monkey_patched("socket")))


def celerys_pool(asked: Any) -> type | None:
    """The class of a pool that Celery has, or that can be imported, and the engine has not; ``None`` when there is none."""
    if isinstance(asked, type):
        return None if asked.__module__ in CELERY_POOL_CLASSES else asked
    name = str(asked)
    if name not in GREEN and ":" not in name and not (name == "custom" and os.environ.get("CELERY_CUSTOM_WORKER_POOL")):
        return None
    try:
        pool: type = get_implementation(name)
    except ImportError as error:
        raise ConfigurationError(f"The pool {name} is not installed ({error}): pip install {name}") from error
    return pool


class HandedOver(CelerysWorker):
    """Celery's worker of an app of ours."""

    def on_before_init(self, **options: Any) -> None:
        """See Celery's.  Raises ``ConfigurationError``: this app needs the engine."""
        if options.get("http_port") is not None:
            raise ConfigurationError("--http-port is of Celeriac's own pools: leave it out, or take threads or asyncio")
        super().on_before_init(**options)

    def on_init_blueprint(self) -> None:
        """See Celery's."""
        super().on_init_blueprint()
        check(self.app, _name(self.pool_cls))
        queues = Subscription(connect.queue_names(self.app))
        self._scheduler = Loop(Scheduler(connect.open_broker(self.app), queues, bus))

    def on_start(self) -> None:
        """See Celery's."""
        super().on_start()
        name = _name(self.pool_cls)
        print(  # where people look, whatever the level of the log
            f"celeriac: Celery's own worker runs the pool {name}. Leases, dead letters and the patterns of tasks do not apply to what "
            "it takes: what it dies with comes back as it does on Celery\n",
            file=sys.__stdout__, flush=True,
        )  # fmt: skip
        self._scheduler.start()

    def on_stopped(self) -> None:
        """See Celery's."""
        self._scheduler.end()
        super().on_stopped()


def _name(pool: type) -> str:
    return pool.__module__.rpartition(".")[2] if pool.__module__.startswith("celery.") else pool.__qualname__


def check(app: Any, pool: str) -> None:
    """See whether Celery's worker can serve this app's queues.

    Raises:
        ConfigurationError: what keeps it from that, by name, and the way out.
    """
    if pool in GREEN and not is_patched():
        raise ConfigurationError(
            f"worker_pool = {pool!r} comes too late for a pool that changes Python's own modules: say it on the command line, -P {pool}"
        )
    url = connect.broker_url(app)
    if connect.scheme_of(url) in OURS_ONLY:
        raise ConfigurationError(
            f"The pool {pool} is run by Celery's own worker, which cannot take tasks from {connect.scheme_of(url)}:// brokers: take "
            "--pool=threads or asyncio, or a broker of Celery's"
        )
    needing = [f"{task.name} ({', '.join(needs)})" for task in _served(app) if (needs := list(_needs(task)))]
    if needing:
        raise ConfigurationError(
            f"The pool {pool} is run by Celery's own worker, which cannot do what these tasks ask for: {'; '.join(needing)}. Take "
            "--pool=threads or asyncio, or route them to queues of their own (task_routes, -Q) for a worker with such a pool"
        )


def _served(app: Any) -> list[Any]:
    """The tasks that come to this worker, as far as routes can tell without a call's arguments."""
    queues = set(connect.queue_names(app))
    return [task for name, task in sorted(app.tasks.items()) if _queue_of(app, name, task) in queues]


def _queue_of(app: Any, name: str, task: Any) -> str | None:
    try:
        options = app.amqp.router.route({}, name, (), {}, task)
    except Exception:  # a router of the app's own may want to see arguments
        options = {}
    queue = options.get("queue") or getattr(task, "queue", None)
    address, _ = resolve(app, queue, options.get("exchange"), options.get("routing_key"), None)
    return address.queue or app.conf.task_default_queue


def _needs(task: Any) -> Iterator[str]:
    """What a task asks for that only the engine does."""
    for pattern in declaring.PATTERNS:
        if pattern.is_used(task):
            named = [name for name in pattern.options if getattr(task, name, None) not in (None, False)]
            yield from named or (["arguments by annotation"] if "payload" in pattern.options else [])
    if is_coroutine_task(task):
        yield "async def"
