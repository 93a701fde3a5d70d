"""Dramatiq: acknowledges after the run, always."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.apps import RESULTS, URL
from benchmarks.bodies import BODIES

broker = RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True))
dramatiq.set_broker(broker)
ACTORS = {name: dramatiq.actor(body) for name, body in BODIES.items()}


def send_each(task: str, arguments: Iterable[tuple[Any, ...]]) -> None:
    actor = ACTORS[task]
    for args in arguments:
        actor.send(*args)


# Dramatiq has nothing that sends several in one round trip.
send_many = send_each
