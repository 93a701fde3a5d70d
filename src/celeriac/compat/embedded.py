"""A worker in the process of an app's tests: what ``celery.contrib.testing.worker.start_worker`` and the fixtures of Celery's pytest
plugin (``celery_worker``, ``celery_session_worker``) start for an app of ours.

It leases, runs and settles like any other, in threads; with ``pool="prefork"`` in processes, which cannot see what a test patches.
The process stays the tests' own: its signals, title, logging and output are left alone.
"""

from __future__ import annotations

import threading
from typing import Any

from celery.contrib.testing import worker as testing
from celery.worker import state as worker_state

from celeriac.compat.control.modules import load
from celeriac.compat.worker import Worker
from celeriac.engine.launcher import SoloLauncher
from celeriac.engine.supervisor import Shutdown
from celeriac.errors import ConfigurationError

LOOK_SECONDS = 0.02
"""Time between looks whether the test wants the worker to end: Celery says so in a variable."""


class EmbeddedWorker(Worker):
    """Takes the keyword arguments of Celery's ``TestWorkController``."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        """Always one of these: a test's process cannot become one for gevent."""
        return object.__new__(cls)

    def __init__(
        self, app: Any = None, hostname: str | None = None, *, ready_callback: Any = None, **kwargs: Any
    ) -> None:
        """``ready_callback(consumer)`` is called when tasks are taken."""
        self._ready_callback = ready_callback
        self._started = threading.Event()
        self._failure: BaseException | None = None
        super().__init__(app, hostname, embedded=True, **kwargs)

    # -- what a test does with it ----------------------------------------------------------------------------------

    @property
    def consumer(self) -> Any:
        """As much of Celery's consumer as there is a counterpart for."""
        return self.remote.consumer

    def ensure_started(self) -> None:
        """Wait until tasks are taken.  Raises what kept the worker from starting."""
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Take tasks that were declared since the start, and import ``modules``."""
        self.app.finalize()
        names = sorted(set(self.app.loader.task_modules if modules is None else modules))
        if modules is not None or reload:
            load(self.app, names, anew=reload)
        if self.options.engine.pool == "processes":
            raise ConfigurationError(
                "reload() of a worker in processes: they do not see what a test declares. Declare it before the worker starts, "
                'or use pool="threads"'
            )

    def start(self) -> None:
        """Run until a test wants it to end, or :meth:`stop` is called."""
        try:
            self.exitcode = self._run()
        except BaseException as error:
            self._failure = error
            if self._started.is_set():
                raise
        finally:
            self._started.set()

    # -- what it leaves alone --------------------------------------------------------------------------------------

    def _introduce(self, options: dict[str, Any]) -> None:
        """Nothing: as with Celery's."""

    def _set_up_logging(self) -> None:
        """Nothing: the test has done it."""

    def _announce_setup(self) -> None:
        """Nothing: as with Celery's."""

    def _take_process(self) -> None:
        """Nothing: it is not ours."""

    def _take_signals(self) -> None:
        """Nothing: they are not for us."""

    # -- its life --------------------------------------------------------------------------------------------------

    def _extras(self) -> list[Any]:
        return [*super()._extras(), Watch(self)]

    def _serve_solo(self, launcher: SoloLauncher) -> int:
        """The supervisor runs in this thread, and what takes tasks in another."""
        supervisor = self.supervisor
        assert supervisor is not None
        thread = threading.Thread(target=launcher.serve, name="celeriac-slot", daemon=True)
        thread.start()
        code = supervisor.run()
        if not supervisor.cut_off:
            thread.join()
        return code

    def _on_ready(self) -> None:
        super()._on_ready()
        if self._ready_callback is not None:
            self._ready_callback(self.consumer)
        self._started.set()
        testing.test_worker_started.send(sender=self.app, worker=self, consumer=self.consumer)


class Watch:
    """Ends a worker when a test wants it to."""

    def __init__(self, worker: EmbeddedWorker) -> None:
        self._worker = worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-watch", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            # Celery's code for the exit of a process: 0 is one, too.
            wanted = (worker_state.should_terminate, worker_state.should_stop)
            if any(code is not None and code is not False for code in wanted):
                self._worker.remote.end()
                self._worker.supervisor.stop(Shutdown.WARM)  # type: ignore[union-attr]
                return
