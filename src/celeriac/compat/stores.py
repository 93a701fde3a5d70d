"""Result stores as Celery sees them: its backend classes, writing in batches and waiting without polling.

While a collector is open (see :mod:`celeriac.compat.collect`) they write nothing themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult, result_from_tuple

from celeriac.backend import Backend
from celeriac.compat import connect
from celeriac.compat.chords import publish_callback
from celeriac.compat.collected import collected, collected_part, encode_part, encode_record
from celeriac.compat.unsettled import store_before_errbacks, store_of, unsettled

LONGEST_WAIT = 5.0
"""Seconds between looks at a result when the store does not announce it."""


def result_class(scheme: str) -> Any:
    """The class for a URL's scheme; ``None`` when Celery's own is to be used."""
    if scheme in connect.REDIS_SCHEMES:
        from celeriac.compat.redis_results import results_of

        return results_of(scheme)
    return EngineResults if scheme in connect.BACKENDS else None


class EngineResults(BaseBackend):
    """A store of :mod:`celeriac.backends` behind Celery's backend interface."""

    collects = True
    supports_native_join = True
    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self.url = url

    @property
    def store(self) -> Backend:
        """The store, one object per process."""
        return store_of(self.app)

    # -- one task --------------------------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        if not collected(self, task_id, result, state, traceback, request):
            self.store.store([encode_record(self, task_id, result, state, traceback, request)], guarded=True)
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._meta(unsettled(task_id) or self.store.fetch([task_id])[0])

    def _meta(self, payload: bytes | None) -> dict[str, Any]:
        if payload is None:
            return {"status": states.PENDING, "result": None}
        meta: dict[str, Any] = self.decode_result(payload)
        return meta

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        store_before_errbacks(self, request)
        super()._call_task_errbacks(request, exc, traceback)

    def _forget(self, task_id: str) -> None:
        self.store.forget([task_id])

    def wait_for(
        self, task_id: str, timeout: float | None = None, interval: float = 0.5, no_ack: bool = True,
        on_interval: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Wait for a task's final state.  Raises Celery's ``TimeoutError``."""
        for _, meta in self.get_many([task_id], timeout=timeout, interval=interval, on_interval=on_interval):
            return meta
        raise ResultTimeout("The operation timed out.")

    def get_many(
        self, task_ids: Any, timeout: float | None = None, interval: float | None = None, no_ack: bool = True,
        on_message: Any = None, on_interval: Any = None, max_iterations: int | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
        """Final records as they come.  Raises Celery's ``TimeoutError``."""
        waiting = list(dict.fromkeys(task_ids))
        deadline = None if timeout is None else time.monotonic() + timeout
        turns = 0
        while waiting:
            for task_id, payload in zip(waiting, self.store.fetch(waiting), strict=True):
                meta = self._meta(unsettled(task_id) or payload)
                if meta["status"] in states.READY_STATES:
                    waiting = [other for other in waiting if other != task_id]
                    if on_message is not None:
                        on_message(meta)
                    yield task_id, meta
            turns += 1
            if not waiting or (max_iterations and turns >= max_iterations):
                return
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise ResultTimeout(f"Operation timed out ({timeout})")
            if on_interval is not None:
                on_interval()
            self.store.wait(waiting, LONGEST_WAIT if remaining is None else min(remaining, LONGEST_WAIT))

    # -- groups and chords -----------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        payload = self.encode({"result": result.as_tuple()})
        self.store.store_group(group_id, payload.encode() if isinstance(payload, str) else payload)
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        payload = self.store.fetch_group(group_id)
        if payload is None:
            return None
        return {"result": result_from_tuple(self.decode(payload)["result"], self.app)}

    def _delete_group(self, group_id: str) -> None:
        self.store.forget_group(group_id)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """See Celery's backend."""
        self.store.start_chord(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """See Celery's backend."""
        self.store.grow_chord(chord_id, 1)

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """See Celery's backend: keeps the shape of a header that has groups in it."""
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(member, GroupResult) for member in header.results):
            header.save(backend=self)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """See Celery's backend."""
        if collected_part(self, request, state, result):
            return
        part = encode_part(self, request, state, result)
        if part is not None and self.store.count_parts([part]):
            publish_callback(self, part, self.store.chord_parts(part.group_id))
            self.store.finish_chord(part.group_id)

    def as_uri(self, include_password: bool = True) -> str:
        """The URL."""
        return self.url or "" if include_password else self.store.url

    # -- expiry ----------------------------------------------------------------------------------------------------

    @property
    def supports_autoexpire(self) -> bool:
        """Whether old results go by themselves: a worker of ours deletes them, and stock Celery's beat is to send for it."""
        return hasattr(self.app, "embedded")

    def cleanup(self) -> None:
        """Delete what has expired; Celery's task ``celery.backend_cleanup`` calls it."""
        while self.store.expire():
            pass
