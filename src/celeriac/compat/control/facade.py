"""What a remote control command is given: Celery's ``state``, on top of this package's worker.

Commands of users (``celery.worker.control.control_command`` and ``inspect_command``) get it as their first argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from celeriac.compat.control.orders import Orders
from celeriac.engine.autoscaler import Autoscaler
from celeriac.engine.supervisor import Supervisor
from celeriac.errors import CeleriacError


class NotSupported(CeleriacError):
    """A command or an attribute that this worker does not have; the text names the way out."""

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(f"{what} is not supported by Celeriac yet: {way_out}")


@dataclass(slots=True)
class State:
    """The first argument of a command."""

    app: Any
    hostname: str
    consumer: Consumer
    orders: Orders
    heartbeat: Callable[[], None]
    """Has a heartbeat sent at once."""
    tset: Callable[[Any], Any] = set

    @property
    def supervisor(self) -> Supervisor:
        """The node's supervisor."""
        supervisor: Supervisor = self.consumer.controller.supervisor
        return supervisor


class Consumer:
    """As much of Celery's consumer as there is a counterpart for."""

    gossip = None
    amqheartbeat = None

    def __init__(self, worker: Any, dispatcher: Callable[[], Any]) -> None:
        """``dispatcher`` gives Celery's event dispatcher, or ``None`` while there is none."""
        self.controller = worker
        self.app = worker.app
        self.hostname = worker.hostname
        self.pool = Pool(worker)
        self._dispatcher = dispatcher

    @property
    def event_dispatcher(self) -> Any:
        """Sends events from the supervisor."""
        return self._dispatcher()

    @property
    def task_consumer(self) -> TaskConsumer:
        """Knows the queues."""
        return TaskConsumer(self.app, self.controller.supervisor.queues.names)

    @staticmethod
    def call_soon(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Celery's consumer calls it in its loop; here commands may do so at once."""
        return function(*args, **kwargs)

    def reset_rate_limits(self) -> None:
        """Nothing to reset: slots are told of each change."""

    def update_strategies(self) -> None:
        """Nothing to update: slots work out how to run a task when they first see it."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotSupported(
            f"state.consumer.{name}",
            "a command gets state.app, state.hostname, and of state.consumer: controller, pool, event_dispatcher, task_consumer",
        )


@dataclass(frozen=True, slots=True)
class TaskConsumer:
    """As much of kombu's consumer as tells the queues."""

    app: Any
    names: tuple[str, ...]

    @property
    def queues(self) -> list[Any]:
        """Kombu's declarations of the queues that are consumed."""
        return [self.app.amqp.queues[name] for name in self.names]


class Pool:
    """As much of Celery's pool as there is a counterpart for."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    @property
    def num_processes(self) -> int:
        """Slots that are wanted."""
        return int(self._worker.supervisor.target)

    def grow(self, n: int = 1) -> None:
        """Start slots.  Raises :class:`NotSupported` where the pool is one process."""
        self._scale(n)

    def shrink(self, n: int = 1) -> None:
        """End slots when they have finished what they run.  Raises :class:`NotSupported` and ``ValueError``."""
        self._scale(-n)

    def restart(self) -> None:
        """Replace all slots by new ones."""
        supervisor: Supervisor = self._worker.supervisor
        for slot in supervisor.roster.all():
            slot.closing = True
            slot.order("stop")
        supervisor.scale(supervisor.target)

    def _scale(self, change: int) -> None:
        engine = self._worker.options.engine
        if engine.pool != "processes":
            raise NotSupported(
                f"Resizing the pool {engine.pool}",
                "start the worker again with another --concurrency, or use --pool=processes",
            )
        if self.num_processes + change < 1:
            raise ValueError("Can't shrink pool. All processes busy!" if change < 0 else "Can't grow pool by that.")
        self._worker.supervisor.scale(self.num_processes + change)


def autoscaler_of(supervisor: Supervisor) -> Autoscaler | None:
    """The node's autoscaler, if it has one."""
    loop = supervisor._loops.get("autoscaler")
    return loop.duty if loop is not None and isinstance(loop.duty, Autoscaler) else None
