"""Messages into PostgreSQL: one call with arrays against COPY, in one run.

    python -m benchmarks.postgres_bulk [--total 50000]

For batches of 1, 100, 1,000 and 10,000 messages of 600 bytes it prints messages per second and the CPU time that client and server
spend on each, which other work on the machine disturbs less.  The better of two rounds counts.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from typing import NamedTuple

import psutil

from benchmarks.processes import cpu_seconds
from benchmarks.systems.postgres import DURABLE
from celeriac.brokers.postgres import PostgresBroker, broker
from celeriac.message import Message
from celeriac.postgres_store import PostgresOptions
from tests.server_postgres import PostgresServer

SIZES = (1, 100, 1000, 10_000)
CALLS = 1000
"""Most calls for each size."""
WAYS = {"arrays": 2**31, "COPY": 1}
"""From how many messages on COPY is used."""
RAW = b'{"body": "%s"}' % (b"x" * 600)


class Cost(NamedTuple):
    """Of one message, in microseconds."""

    wall: float
    client: float
    server: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--total", type=int, default=50_000, help="messages for each size, at most")
    total = parser.parse_args().total
    print(f"{'batch':>6} {'way':>7} {'messages/s':>11} {'client µs':>10} {'server µs':>10}")
    with PostgresServer(DURABLE) as server:
        for size in SIZES:
            calls = max(1, min(CALLS, total // size))
            rounds = [
                {way: measure(server, size, calls, copy_from) for way, copy_from in WAYS.items()} for _ in range(2)
            ]
            for way in WAYS:
                cost = min(found[way] for found in rounds)
                print(f"{size:>6,} {way:>7} {1e6 / cost.wall:>11,.0f} {cost.client:>10.1f} {cost.server:>10.1f}")


def measure(server: PostgresServer, size: int, calls: int, copy_from: int) -> Cost:
    """Publish into an empty table."""
    broker.COPY_FROM = copy_from
    sender = PostgresBroker(PostgresOptions(server.url))
    messages = [Message("q", RAW)] * size
    sender.publish(messages)
    server.execute("TRUNCATE celeriac.messages")
    client = psutil.Process()
    began, own, others = time.monotonic(), cpu_seconds(client), backends(server)
    for _ in range(calls):
        sender.publish(messages)
    spent = (time.monotonic() - began, cpu_seconds(client) - own, backends(server) - others)
    sender.close()
    return Cost(*(each / calls / size * 1e6 for each in spent))


def backends(server: PostgresServer) -> float:
    """CPU seconds of the server's processes.  Its sessions that have ended are not counted."""
    spent = 0.0
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.Error):
            spent += cpu_seconds(child)
    return spent


if __name__ == "__main__":
    main()
