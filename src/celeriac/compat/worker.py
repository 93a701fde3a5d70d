"""The worker of an app: Celery's ``Worker`` to its callers, the engine's supervisor inside."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import closing
from functools import cached_property
from typing import Any

from celery import signals
from celery.app.trace import setup_worker_optimizations
from celery.concurrency import get_implementation
from celery.exceptions import ImproperlyConfigured
from celery.platforms import EX_FAILURE, EX_OK, check_privileges, create_pidlock, set_mp_process_title, strargv
from celery.utils.imports import qualname
from celery.utils.log import mlevel
from celery.utils.nodenames import default_nodename, worker_direct
from celery.utils.text import str_to_list
from celery.utils.timer2 import Timer
from kombu.utils.encoding import safe_str

from celeriac.compat import connect, declaring
from celeriac.compat.back_pressure import silent_queues
from celeriac.compat.banner import banner
from celeriac.compat.beat import EmbeddedBeat
from celeriac.compat.bootsteps import ConsumerSteps, WorkerSteps
from celeriac.compat.control.services import RemoteServices
from celeriac.compat.endpoint import ReportingEndpoint
from celeriac.compat.exchanges import Exchanges
from celeriac.compat.handover import HandedOver, celerys_pool
from celeriac.compat.limiting import check_limits
from celeriac.compat.native_delays import declare_native_delays
from celeriac.compat.options import CELERY_POOLS, WorkerOptions, chosen, worker_options
from celeriac.compat.patience import Patience, fails_at_once, longest_outage
from celeriac.compat.periodic import copies
from celeriac.compat.refusals import refuse
from celeriac.compat.runner import CeleryRunner
from celeriac.compat.stop_signals import install_stop_signals
from celeriac.engine.forkserver import ForkServer
from celeriac.engine.launcher import Launcher, SoloLauncher
from celeriac.engine.slot import Node
from celeriac.engine.supervisor import Shutdown, Supervisor
from celeriac.errors import CeleriacError, ConfigurationError, SchemaError
from celeriac.telemetry.bus import bus

logger = logging.getLogger("celery.worker")


class Worker:
    """One worker node.

    Takes the keyword arguments of :class:`celery.apps.worker.Worker`, and ``http_port`` and ``http_host``.
    """

    app: Any = None

    def __new__(cls, app: Any = None, hostname: str | None = None, **kwargs: Any) -> Any:
        """A worker of this class, or Celery's own where only that can have the pool that is asked for."""
        app = app or cls.app
        pool = celerys_pool(chosen(kwargs.get("pool_cls") or kwargs.get("pool"), app.conf.worker_pool))
        if pool is None:
            return super().__new__(cls)
        return HandedOver(app=app, hostname=hostname, **{**kwargs, "pool": None, "pool_cls": pool})

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        """Load the app's tasks and configuration; nothing is started yet.

        Raises:
            celery.exceptions.ImproperlyConfigured: a queue that does not exist.
            ConfigurationError: an option that cannot work.
        """
        self.app = app = app or self.app
        self.hostname = default_nodename(hostname)
        self.exitcode: int | None = None
        self.quiet = bool(kwargs.get("quiet"))
        app.loader.init_worker()
        self._introduce(kwargs)
        self.loglevel = mlevel(kwargs.get("loglevel") or "WARNING")
        self.logfile = kwargs.get("logfile")
        self._purge = bool(kwargs.get("purge"))
        self._no_color = kwargs.get("no_color")
        self._pidfile = kwargs.get("pidfile")
        self._select_queues(kwargs.get("queues"), kwargs.get("exclude_queues"))
        self._include(str_to_list(kwargs.get("include")))
        refuse(app, kwargs.get("pool_start_method"))
        self.options: WorkerOptions = worker_options(app, self.hostname, kwargs)
        self.supervisor: Supervisor | None = None
        self.exchanges = Exchanges(app)
        self.remote = RemoteServices(self, bus, kwargs)
        declaring.check_all(app)
        signals.worker_init.send(sender=self)
        self._steps = (WorkerSteps(self, kwargs), ConsumerSteps(self, kwargs))
        self._set_up_logging()

    def _introduce(self, options: dict[str, Any]) -> None:
        """Make the app this process's, and tell receivers of signals that a worker is being made."""
        setup_worker_optimizations(self.app, self.hostname)
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=self.app.conf, options=options)
        check_privileges(self.app.conf.accept_content)

    def _set_up_logging(self) -> None:
        self._custom_logging = self.app.log.setup(
            self.loglevel, self.logfile, redirect_stdouts=False,
            colorize=None if self._no_color is None else not self._no_color, hostname=self.hostname,
        )  # fmt: skip
        setup_worker_optimizations(self.app, self.hostname)

    @cached_property
    def timer(self) -> Any:
        """Celery's timer, in a thread of its own, for bootsteps."""
        return Timer()

    @property
    def pool(self) -> Any:
        """The slots, as far as Celery's pool has a counterpart."""
        return self.remote.pool

    @property
    def concurrency(self) -> int:
        """Tasks that run at once."""
        return self.options.engine.concurrency

    @property
    def pool_cls(self) -> type:
        """Celery's pool of the same kind, for receivers of signals that ask: Celery's own for Django are among them."""
        return get_implementation(CELERY_POOLS[self.options.engine.pool])

    def _select_queues(self, include: Any, exclude: Any) -> None:
        queues = self.app.amqp.queues
        try:
            queues.select(str_to_list(include))
            queues.deselect(str_to_list(exclude))
        except KeyError as error:
            known = ", ".join(sorted(queues)) or "none"
            raise ImproperlyConfigured(f"Queue {error} is not in task_queues, which has: {known}") from error
        if self.app.conf.worker_direct:
            queues.select_add(worker_direct(self.hostname))

    def _include(self, modules: list[str] | None) -> None:
        for module in modules or ():
            self.app.loader.import_task_module(module)
        found = {task.__class__.__module__ for task in self.app.tasks.values()}
        self.app.conf.include = tuple({*self.app.conf.include, *(modules or ()), *found})

    # -- the worker's life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run until stopped; :attr:`exitcode` tells how it ended."""
        lock = create_pidlock(self._pidfile) if self._pidfile else None
        try:
            self.exitcode = self._run()
        except (CeleriacError, ImproperlyConfigured) as error:
            logger.critical("%s", error)
            self.exitcode = EX_FAILURE
        except Exception as error:
            logger.critical("Unrecoverable error: %r", error, exc_info=True)
            self.exitcode = EX_FAILURE
        finally:
            if lock is not None:
                lock.release()

    def _run(self) -> int:
        app = self.app
        self._announce_setup()
        node = Node(
            self.options.engine, lambda: connect.open_broker(app), lambda: connect.open_backend(app),
            lambda: connect.key_values(app), self._make_runner(), bus,
        )  # fmt: skip
        self._check_broker()
        self._take_process()
        return self._supervise(node)

    def _make_runner(self) -> CeleryRunner:
        app = self.app
        with closing(connect.open_broker(app)) as broker:  # it only says what it shares a store with
            backend = connect.open_backend(app)
            runner = CeleryRunner(
                app, self.hostname, bus,
                time_limit=self.options.time_limit, soft_time_limit=self.options.soft_time_limit,
                max_crashes=self.options.engine.max_crashes,
                stores_apart=backend is None or not broker.shares_store(backend),
                buckets=None if self.options.disable_rate_limits else self.remote.orders.buckets,
                embedded=self.options.engine.embedded,
            )  # fmt: skip
            runner.orders = self.remote.orders
            runner.copies = copies.watch_of(app, broker)
        return runner

    def _announce_setup(self) -> None:
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)

    def _take_process(self) -> None:
        """Say what runs here, and have the process's title and output be the worker's."""
        app = self.app
        if not self.quiet:
            print(safe_str(banner(self)), file=sys.__stdout__, flush=True)
        if self.options.sizing:
            logger.info("%s", self.options.sizing)
        set_mp_process_title("celeriac", info=f"-active- ({strargv(sys.argv)})", hostname=self.hostname)
        if not self._custom_logging and app.conf.worker_redirect_stdouts:
            app.log.redirect_stdouts(app.conf.worker_redirect_stdouts_level)

    def _check_broker(self) -> None:
        """Fail now, with a word of explanation, rather than in each slot."""
        connect.check_worker(self.app, self.options.engine)
        broker = connect.open_broker(self.app)
        try:
            declaring.check_shared_state(self.app)
            check_limits(self.app, broker)
            for queue in () if broker.counts_bounds else silent_queues(self.app):
                logger.warning(
                    "Queue %s is bounded, and when it is full RabbitMQ drops its oldest message without a word: set "
                    "celeriac_queue_full to raise, block or drop_oldest, or the queue's argument x-overflow", queue,
                )  # fmt: skip
            broker.ping()
            declare_native_delays(self.app, broker)
            if self._purge:
                count = sum(broker.purge(queue) for queue in self.options.engine.queues)
                print(f"purge: erased {count} messages\n", flush=True)
        except (ConfigurationError, SchemaError):
            raise  # waiting does not help
        except CeleriacError as error:
            if fails_at_once(self.app.conf):
                raise
            logger.warning("%s. Trying again until it is there", error)
        finally:
            broker.close()

    def _supervise(self, node: Node) -> int:
        launcher: Launcher = SoloLauncher(node) if node.settings.in_process else ForkServer(node)
        supervisor = self.supervisor = Supervisor(node, launcher, report=self.options.http_port is not None)
        supervisor.on_ready = self._on_ready
        endpoint = ReportingEndpoint(self, supervisor) if self.options.http_port is not None else None
        self._take_signals()
        extras = self._extras()
        try:
            if endpoint is not None:
                endpoint.start()
            for extra in extras:
                extra.start()
            code = self._serve_solo(launcher) if isinstance(launcher, SoloLauncher) else supervisor.run()
        finally:
            for extra in reversed(extras):
                extra.stop()
            if endpoint is not None:
                endpoint.stop()
            self.app.loader.shutdown_worker()
            signals.worker_shutdown.send(sender=self)
        return code

    def _take_signals(self) -> None:
        install_stop_signals(self)

    def _serve_solo(self, launcher: SoloLauncher) -> int:
        """Tasks run in this thread, and the supervisor in another."""
        supervisor = self.supervisor
        assert supervisor is not None

        def supervise() -> None:
            code = supervisor.run()
            if supervisor.cut_off:  # the task still runs in the main thread, but it is no longer ours
                logging.shutdown()
                os._exit(code)

        thread = threading.Thread(target=supervise, name="celeriac-supervisor", daemon=True)
        thread.start()
        launcher.serve()
        thread.join()
        return EX_OK

    def _extras(self) -> list[Any]:
        """Services beside the engine: remote control, events, and an embedded beat."""
        extras: list[Any] = [self.exchanges, self.remote, *self._steps]
        longest = longest_outage(self.app.conf)
        if longest is not None:
            extras.append(Patience(self, longest))
        if self.options.beat:
            extras.append(EmbeddedBeat(self.app, self.options.schedule_filename, self.options.scheduler))
        return extras

    def _on_ready(self) -> None:
        signals.worker_ready.send(sender=self.remote.consumer)
        logger.info("%s ready.", self.hostname)

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Warm shutdown: running tasks finish."""
        if self.supervisor is not None:
            self.supervisor.stop(Shutdown.WARM)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Cold shutdown: running tasks are killed; those acknowledged late go back to their queues."""
        if self.supervisor is not None:
            self.supervisor.stop(Shutdown.COLD)

    def __repr__(self) -> str:
        return f"<{qualname(self)}: {self.hostname} ({os.getpid()})>"
