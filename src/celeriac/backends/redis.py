"""The contract of :mod:`celeriac.backend` on Redis, in the keys and formats of Celery's own Redis result store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celeriac.backend import Backend
from celeriac.brokers.redis.connection import RedisConnection
from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.pools import make_pool
from celeriac.brokers.redis.result_keys import ResultKeys
from celeriac.brokers.redis.settlement import part_operation, result_operation
from celeriac.brokers.redis.translation import translated
from celeriac.outcome import ChordPart, Result


class RedisBackend(Backend):
    """Results, groups and chord counts in Redis."""

    def __init__(self, options: RedisOptions, **lifetimes: Any) -> None:
        """Connects at first use.

        Args:
            options: where the server is; its ``key_prefix`` is put before the keys.
            lifetimes: fields of :class:`~celeriac.brokers.redis.result_keys.ResultKeys`.
        """
        self.url = options.safe_url()
        self._options = options
        self._redis = RedisConnection(options, ("store",))
        self.keys = ResultKeys(self._redis.address, self._redis.database, options.key_prefix, **lifetimes)

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self._redis.round_trips

    def store(self, results: Sequence[Result], *, guarded: bool = False) -> None:
        """See :meth:`Backend.store`."""
        arguments: list[Any] = []
        for result in results:
            arguments += result_operation(self.keys, result, guarded=guarded)
        if arguments:
            self._redis.run("store", (), arguments)

    def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """See :meth:`Backend.fetch`."""
        if not task_ids:
            return []
        with self._redis.call() as client:
            found: Any = client.mget([self.keys.task_key(task_id) for task_id in task_ids])
        return list(found)

    def forget(self, task_ids: Sequence[str]) -> None:
        """See :meth:`Backend.forget`."""
        if task_ids:
            with self._redis.call() as client:
                client.delete(*(self.keys.task_key(task_id) for task_id in task_ids))

    def wait(self, task_ids: Sequence[str], timeout: float) -> bool:
        """See :meth:`Backend.wait`: subscribes to the channels that writers announce results on."""
        deadline = time.monotonic() + timeout
        pool = make_pool(self._options)
        with translated(self._options), self._redis.client.__class__(connection_pool=pool).pubsub() as subscription:
            subscription.subscribe(*(self.keys.task_key(task_id) for task_id in task_ids))
            while (remaining := deadline - time.monotonic()) > 0:
                message = subscription.get_message(timeout=remaining)
                kind = message["type"] if message is not None else ""
                # A subscription is confirmed before anything else comes: what was written before it counts, too.
                if kind == "message" or (kind == "subscribe" and any(self.fetch(task_ids))):
                    return True
        return False

    def store_group(self, group_id: str, payload: bytes) -> None:
        """See :meth:`Backend.store_group`."""
        with self._redis.call() as client:
            client.set(self.keys.group_key(group_id), payload, ex=self.keys.ttl or None)

    def fetch_group(self, group_id: str) -> bytes | None:
        """See :meth:`Backend.fetch_group`."""
        with self._redis.call() as client:
            found: Any = client.get(self.keys.group_key(group_id))
        return found if isinstance(found, bytes) else None

    def forget_group(self, group_id: str) -> None:
        """See :meth:`Backend.forget_group`."""
        with self._redis.call() as client:
            client.delete(self.keys.group_key(group_id))

    # -- chords ----------------------------------------------------------------------------------------------------

    def start_chord(self, group_id: str, size: int) -> None:
        """See :meth:`Backend.start_chord`."""
        key = self.keys.group_key(group_id)
        with self._redis.call() as client:
            pipe = client.pipeline(transaction=True)
            pipe.delete(key + ".c")
            pipe.set(key + ".s", size, ex=self.keys.chord_ttl or None)
            pipe.execute()

    def grow_chord(self, group_id: str, more: int) -> None:
        """See :meth:`Backend.grow_chord`."""
        with self._redis.call() as client:
            client.incrby(self.keys.group_key(group_id) + ".t", more)

    def count_parts(self, parts: Sequence[ChordPart]) -> list[ChordPart]:
        """See :meth:`Backend.count_parts`."""
        arguments: list[Any] = []
        for part in parts:
            arguments += part_operation(self.keys, part)
        places = self._redis.run("store", (), arguments) if arguments else []
        return [parts[place - 1] for place in places]

    def chord_parts(self, group_id: str) -> list[bytes]:
        """See :meth:`Backend.chord_parts`."""
        key = self.keys.group_key(group_id) + ".j"
        with self._redis.call() as client:
            found: Any = client.zrange(key, 0, -1) if self.keys.chord_ordered else client.lrange(key, 0, -1)
        return list(found)

    def finish_chord(self, group_id: str) -> None:
        """See :meth:`Backend.finish_chord`."""
        key = self.keys.group_key(group_id)
        with self._redis.call() as client:
            pipe = client.pipeline(transaction=True)
            pipe.delete(*(key + suffix for suffix in (".j", ".t", ".s", ".d")))
            pipe.set(key + ".c", "done", ex=self.keys.done_ttl)
            pipe.execute()

    # -- the rest --------------------------------------------------------------------------------------------------

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`Backend.expire`."""
        return 0

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._redis.close()
