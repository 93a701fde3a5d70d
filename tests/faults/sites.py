"""Where the tests of faults take place: a pair of stores, and a faulty way to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.proxy import FaultProxy
from tests.workers import Stage, Worker

ONE_STORE = ("redis", "postgres")
"""Broker and results in one."""
KINDS = (*ONE_STORE, "rabbitmq", "redis+postgres")
"""The broker's kind, and the result store's where it is another.  RabbitMQ's results are in Redis."""

HASTY = {
    "socket_timeout": 1.0,
    "socket_connect_timeout": 1.0,
    "answer_timeout": 1.0,
    "connect_timeout": 1.0,
    "read_timeout": 1.0,
}
QUICK: dict[str, Any] = {
    "broker_transport_options": HASTY,
    "result_backend_transport_options": HASTY,
    "redis_socket_timeout": 1.0,
    "broker_heartbeat": 2.0,
    "celeriac_lease_seconds": 2,
}
"""So that a silent server is noticed, and a silent node's work taken over, within two seconds."""


@dataclass
class Site:
    """Stores for one test."""

    directory: Path
    broker: str
    """URL."""
    backend: str
    broker_way: FaultProxy
    backend_way: FaultProxy
    """The broker's where it is the same store."""

    @property
    def far_broker(self) -> str:
        """The URL by the faulty way."""
        return _through(self.broker, self.broker_way)

    @property
    def far_backend(self) -> str:
        """The URL by the faulty way."""
        return _through(self.backend, self.backend_way)

    @property
    def ways(self) -> set[FaultProxy]:
        """All of them."""
        return {self.broker_way, self.backend_way}

    @contextmanager
    def stage(self, *, far: bool = False, **conf: Any) -> Iterator[Stage]:
        """A client of the stores; ``far``: by the faulty ways."""
        urls = (self.far_broker, self.far_backend) if far else (self.broker, self.backend)
        with Stage(self.directory, *urls, conf=conf) as stage:
            yield stage

    def far_worker(self, stage: Stage, **options: Any) -> Worker:
        """A worker that has only the faulty ways."""
        return stage.worker(broker=self.far_broker, backend=self.far_backend, **options)

    def resume(self) -> None:
        """All is well again."""
        for way in self.ways:
            way.resume()


def _through(url: str, way: FaultProxy) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{way.port}/")


@contextmanager
def site_of(request: Any, directory: Path) -> Iterator[Site]:
    """For a fixture with some of :data:`KINDS` as its parameters."""
    kind = request.param
    broker, _, results = kind.partition("+")
    url = request.getfixturevalue(f"{broker}_url")
    with ExitStack() as stack:
        way = back = stack.enter_context(FaultProxy(urlsplit(url).port or 0))
        backend = url
        if broker == "rabbitmq" or results:
            backend = request.getfixturevalue(f"{results or 'redis'}_url")
            back = stack.enter_context(FaultProxy(urlsplit(backend).port or 0))
        yield Site(directory, url, backend, way, back)
