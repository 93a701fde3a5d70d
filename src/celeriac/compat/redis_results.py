"""Celery's Redis result stores with Celeriac's send path: no subscription per task that is sent, and collected writes."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

from celery.app.defaults import DEFAULTS
from celery.backends.redis import RedisBackend, ResultConsumer, SentinelBackend
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from celeriac.compat.collected import collected, collected_part
from celeriac.compat.kombu_waits import ANSWER_SECONDS
from celeriac.compat.unsettled import store_before_errbacks, unsettled


def results_of(scheme: str) -> Any:
    """The class for a URL's scheme."""
    return SentinelResults if scheme == "sentinel" else RedisResults


MESSAGES_AT_ONCE = 1000
"""So many at most before the waiter looks up again."""


RETRY_SECONDS = 20.0
"""How long a lost connection is tried to be made again: about as long as Celery's 20 attempts take where each fails at once."""


class Announcements(ResultConsumer):
    """Takes announced results as they have come, many at once.

    Celery takes one, and then looks at all the parents of what is waited for: for the body of a chord of 10,000, 10,000 looks
    at 10,000 results.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leaving = threading.local()
        """``on`` while this thread ends a subscription."""

    def drain_events(self, timeout: float | None = None) -> None:
        """See Celery's."""
        super().drain_events(timeout)
        for _ in range(MESSAGES_AT_ONCE):
            if not self._has_more():
                return
            super().drain_events(0)

    def cancel_for(self, task_id: str) -> None:
        """See Celery's.  Called for every handle that is garbage, wherever that is found out: it does not try to reach a server
        that is away, which takes Celery's up to half a minute.
        """
        pubsub = self._pubsub
        connection = pubsub.connection if pubsub is not None else None
        if connection is not None and connection.is_connected:
            self._leaving.on = True
            try:
                super().cancel_for(task_id)
            finally:
                self._leaving.on = False
        else:  # who connects next leaves it out
            forgotten: set[str] = getattr(self, "_pending_unsubscribe", set())  # Celery 5.6 has none
            forgotten.add(self._get_key_for_task(task_id))

    def _reconnect(self) -> None:
        if not getattr(self._leaving, "on", False):
            super()._reconnect()

    def _has_more(self) -> bool:
        with getattr(self, "_locked", nullcontext)():  # Celery 5.6 has no lock
            pubsub = self._pubsub
            connection = pubsub.connection if pubsub is not None and pubsub.subscribed else None
            return connection is not None and connection.is_connected and bool(connection.can_read(timeout=0))


class RedisResults(RedisBackend):
    """Reads as Celery does; writes what the collector does not take."""

    ResultConsumer = Announcements
    collects = True

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        # Celery cuts the "redis+" of a socket's URL off before it makes the class.
        super().__init__(*args, url=url.removeprefix("redis+") if url else url, **kwargs)
        if self.app.conf.redis_socket_timeout == DEFAULTS["redis_socket_timeout"]:
            # Celery's two minutes, for each try, would make get(timeout=3) hang for as long as a network is cut in two.  Where there
            # was no answer in time there would be none the next time; a connection that was lost is another matter.
            retry = Retry(ConstantBackoff(0.1), 3, supported_errors=(RedisConnectionError,))
            self.connparams.update(socket_timeout=ANSWER_SECONDS, retry=retry)
            if "path" not in self.connparams and not self.connparams.get("socket_connect_timeout"):
                self.connparams["socket_connect_timeout"] = ANSWER_SECONDS

    def ensure(self, fun: Any, args: Any, **policy: Any) -> Any:
        """Try again and again, but not for ever."""
        return super().ensure(fun, args, **{"timeout": RETRY_SECONDS, **policy})

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Celery subscribes to the result of every task it sends.  Waiting for it subscribes anyway, and then looks whether
        it is there already, so nothing is missed by not doing so here.
        """

    def remove_pending_result(self, result: Any) -> Any:
        """Every handle says goodbye when it goes; only those that somebody waited with have left anything here."""
        handles, weak_handles = self._pending_results
        if result.id in handles or result.id in weak_handles:
            return super().remove_pending_result(result)
        return result

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if collected(self, task_id, result, state, traceback, request):
            return result
        return super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)

    def _get_task_meta_for(self, task_id: str) -> Any:
        payload = unsettled(task_id)
        return super()._get_task_meta_for(task_id) if payload is None else self.decode_result(payload)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        store_before_errbacks(self, request)
        super()._call_task_errbacks(request, exc, traceback)

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any) -> None:
        """See Celery's backend."""
        if not collected_part(self, request, state, result):
            super().on_chord_part_return(request, state, result, propagate=propagate, **kwargs)


class SentinelResults(RedisResults, SentinelBackend):
    """The same on whichever server is the master.  Each method of the first class calls on to the second's."""
