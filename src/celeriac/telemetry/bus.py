"""Carries events from the engine to whoever listens, within one process.

Hot code asks before it builds an event, so that telemetry is free when nobody listens::

    if bus.listening:
        bus.emit(TaskReceived(task, queue, task_id))
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from celeriac.telemetry.events import Event

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]
"""Called with each event, in the thread that emits it: it must be quick, must not block, and must be thread-safe."""


class _Subscription(NamedTuple):
    listener: Listener
    in_children: bool


class Bus:
    """Hands each event to every listener, in the order in which they subscribed.

    A listener that raises is logged once and stays subscribed; neither the engine nor the other listeners notice.
    """

    listening: bool
    """Whether anybody listens.  A plain attribute, because it is read several times per task."""

    passing: tuple[type[BaseException], ...]
    """Exceptions that are not a listener's own (a soft time limit raised by a signal) and go through to the caller."""

    def __init__(self) -> None:
        self.listening = False
        self.passing = ()
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._listeners: tuple[Listener, ...] = ()
        self._reported: set[int] = set()
        self._lock = threading.Lock()

    def subscribe(self, listener: Listener, *, in_children: bool = True) -> Callable[[], None]:
        """Hear every event from now on; return a function that ends it (calling that twice does no harm).

        Args:
            listener: called with each event.
            in_children: whether a forked child keeps the subscription.  False for what holds a resource of this
                process, such as a connection or a registry that only this process shows.
        """
        subscription = _Subscription(listener, in_children)
        with self._lock:
            self._replace((*self._subscriptions, subscription))
        return lambda: self._unsubscribe(subscription)

    def emit(self, event: Event) -> None:
        """Give an event to all listeners.  Raises nothing but :attr:`passing`."""
        for listener in self._listeners:
            try:
                listener(event)
            except self.passing:
                raise
            except Exception:
                self._report(listener, event)

    def after_fork(self) -> None:
        """Forget the listeners that belong to the parent process.  Called in a forked child."""
        self._lock = threading.Lock()
        self._replace(tuple(each for each in self._subscriptions if each.in_children))

    def _unsubscribe(self, subscription: _Subscription) -> None:
        with self._lock:
            self._replace(tuple(each for each in self._subscriptions if each is not subscription))
            self._reported.discard(id(subscription.listener))

    def _replace(self, subscriptions: tuple[_Subscription, ...]) -> None:
        """Copy on write: ``emit`` runs over a tuple that never changes and needs no lock."""
        self._subscriptions = subscriptions
        self._listeners = tuple(each.listener for each in subscriptions)
        self.listening = bool(subscriptions)

    def _report(self, listener: Listener, event: Event) -> None:
        if id(listener) in self._reported:
            return
        self._reported.add(id(listener))
        logger.exception(
            "The telemetry listener %r failed on %s; its further failures are not logged",
            listener,
            type(event).__name__,
        )


bus = Bus()
"""The process's own bus: what this process does, and nothing from other processes."""

os.register_at_fork(after_in_child=bus.after_fork)
