"""The stores that the conformance suites run on, and small words for their tests."""

from __future__ import annotations

import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from celeriac.backend import Backend
from celeriac.backends.postgres import PostgresBackend
from celeriac.backends.redis import RedisBackend
from celeriac.backends.sqlite import SQLiteBackend
from celeriac.broker import Broker
from celeriac.brokers.postgres import PostgresBroker
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.redis import RedisBroker, RedisOptions
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.compat.connect_rabbitmq import rabbit_options
from celeriac.keyvalue import KeyValueStore
from celeriac.keyvalues.postgres import PostgresKeyValues
from celeriac.keyvalues.redis import RedisKeyValues
from celeriac.keyvalues.sqlite import SQLiteKeyValues
from celeriac.message import Delivery, Message
from celeriac.outcome import ChordPart, DeadLetter, Outcome, Result, State
from celeriac.postgres_store import PostgresOptions

TTL = 60.0
QUEUE = "images"

_numbers = itertools.count(1)


class Kit(ABC):
    """One store, empty at first.  Each call makes an object of its own on it, as each process does."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @abstractmethod
    def new_broker(self, backend: Backend | None) -> Broker: ...

    @abstractmethod
    def new_backend(self, ttl: int) -> Backend: ...

    def new_key_values(self) -> KeyValueStore:
        raise NotImplementedError

    def broker(self, backend: Backend | None = None) -> Broker:
        return self._stack.enter_context(closing(self.new_broker(backend)))

    def backend(self, ttl: int = 3600) -> Backend:
        return self._stack.enter_context(closing(self.new_backend(ttl)))

    def key_values(self) -> KeyValueStore:
        return self._stack.enter_context(closing(self.new_key_values()))


class SQLiteKit(Kit):
    def __init__(self, stack: ExitStack, path: Path) -> None:
        super().__init__(stack)
        self.path = path

    def new_broker(self, backend: Backend | None) -> Broker:
        return SQLiteBroker(self.path)

    def new_backend(self, ttl: int) -> Backend:
        return SQLiteBackend(self.path, result_ttl=ttl)

    def new_key_values(self) -> KeyValueStore:
        return SQLiteKeyValues(self.path)


class RedisKit(Kit):
    def __init__(self, stack: ExitStack, url: str) -> None:
        super().__init__(stack)
        self.url = url

    def new_broker(self, backend: Backend | None) -> Broker:
        return RedisBroker.from_url(self.url, backend.keys if isinstance(backend, RedisBackend) else None)

    def new_backend(self, ttl: int) -> Backend:
        return RedisBackend(RedisOptions(self.url), ttl=ttl)

    def new_key_values(self) -> KeyValueStore:
        return RedisKeyValues(RedisOptions(self.url))


class PostgresKit(Kit):
    def __init__(self, stack: ExitStack, url: str) -> None:
        super().__init__(stack)
        self.options = PostgresOptions(url)

    def new_broker(self, backend: Backend | None) -> Broker:
        return PostgresBroker(self.options, backend)

    def new_backend(self, ttl: int) -> Backend:
        return PostgresBackend(self.options, result_ttl=ttl)

    def new_key_values(self) -> KeyValueStore:
        return PostgresKeyValues(self.options)


class RabbitKit(Kit):
    """Results are apart, in SQLite."""

    def __init__(self, stack: ExitStack, url: str, path: Path) -> None:
        super().__init__(stack)
        self.url = url
        self.path = path

    def new_broker(self, backend: Backend | None) -> Broker:
        kind = os.environ.get("RABBITMQ_OWN_QUEUES", "classic")  # scripts/test-newer.sh tries both
        return RabbitBroker(rabbit_options(self.url, queue_type=kind))

    def new_backend(self, ttl: int) -> Backend:
        return SQLiteBackend(self.path, result_ttl=ttl)

    def new_key_values(self) -> KeyValueStore:
        return SQLiteKeyValues(self.path)


def messages(*raws: bytes | str, queue: str = QUEUE, priority: int = 0, due: float | None = None) -> list[Message]:
    return [Message(queue, raw.encode() if isinstance(raw, str) else raw, priority, due) for raw in raws]


def owner_of(broker: Broker, queues: Sequence[str] = (QUEUE,), ttl: float = TTL) -> str:
    """Register an owner under a new name."""
    name = f"host-{next(_numbers)}"
    broker.register(name, queues, ttl)
    return name


def raws(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.raw for delivery in deliveries]


def tags(deliveries: Iterable[Delivery]) -> list[int]:
    return [delivery.tag for delivery in deliveries]


def done(*deliveries: Delivery) -> list[Outcome]:
    return [Outcome(delivery, State.SUCCEEDED) for delivery in deliveries]


def failed(
    delivery: Delivery, reason: str = "failed", error: str = "ValueError: no", at: float = 1_700_000_000.5
) -> Outcome:
    return Outcome(delivery, State.FAILED, dead=DeadLetter(reason, error, at=at))


def record(task_id: str, state: str = "SUCCESS", result: object = None) -> Result:
    payload = json.dumps({"task_id": task_id, "status": state, "result": result}).encode()
    return Result(task_id, state, payload)


def part(group_id: str, index: int | None, task_id: str | None = None, payload: bytes | None = None) -> ChordPart:
    return ChordPart(group_id, task_id or f"task-{index}", index, payload or b"payload %d" % (index or 0), b"callback")


def kill(
    broker: Broker,
    raw: str | bytes = "doomed",
    *,
    reason: str = "failed",
    queue: str = QUEUE,
    at: float = 1_700_000_000.5,
) -> None:
    """Make a dead letter."""
    broker.publish(messages(raw, queue=queue))
    owner = owner_of(broker, [queue])
    (delivery,) = broker.lease(owner, [queue], 1)
    broker.settle(owner, [failed(delivery, reason, at=at)])
    broker.unregister(owner)


def places(broker: Broker, queues: Sequence[str] = (QUEUE,)) -> int:
    """How many messages there are, wherever they are."""
    depths = broker.depth(queues)
    return sum(d.ready + d.scheduled for d in depths) + broker.leased_count() + broker.dead_count()
