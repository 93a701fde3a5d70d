"""How large the PostgreSQL store's tables get while many messages turn over in a short queue.

    python -m benchmarks.postgres_bloat [--messages 500000] [--ready 1000] [--horizon]

Two owners lease, settle with a result each and publish again in batches of 100, so that as many messages as before are there
all the time.  Every tenth of the way it prints sizes, dead rows, and how long a turn takes.  ``--horizon`` keeps a transaction
open meanwhile that has read something, as a forgotten session or a long report does: no vacuum can remove what died since.
"""

from __future__ import annotations

import argparse
import threading
import time

import psycopg

from celeriac.backends.postgres import PostgresBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.message import Message
from celeriac.outcome import Outcome, Result, State
from celeriac.postgres_store import PostgresOptions
from tests.server_postgres import PostgresServer

BATCH = 100
RAW = b'{"body": "%s"}' % (b"x" * 600)
RESULT = b'{"status": "SUCCESS", "result": null, "children": []%s}' % (b" " * 120)
SIZES = """
SELECT pg_size_pretty(pg_relation_size('celeriac.messages')), pg_size_pretty(pg_relation_size('celeriac.messages_ready')),
    pg_size_pretty(pg_relation_size('celeriac.messages_leased')), pg_size_pretty(pg_total_relation_size('celeriac.results')),
    n_dead_tup, autovacuum_count
FROM pg_stat_user_tables WHERE relid = 'celeriac.messages'::regclass
"""


class Owner(threading.Thread):
    """Leases, settles and sends again until told to stop."""

    def __init__(self, options: PostgresOptions, name: str) -> None:
        super().__init__(name=name)
        self.broker = PostgresBroker(options, PostgresBackend(options))
        self.done = 0
        self.ended = False

    def run(self) -> None:
        self.broker.register(self.name, ["q"], 3600)
        held = self.broker.lease(self.name, ["q"], BATCH)
        while not self.ended:
            outcomes = [
                Outcome(
                    delivery,
                    State.SUCCEEDED,
                    (Result(f"{self.name}-{delivery.tag:032}", "SUCCESS", RESULT),),
                    (Message("q", RAW),),
                )
                for delivery in held
            ]
            self.done += len(held)
            _, held = self.broker.turn(self.name, outcomes, ["q"], BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--ready", type=int, default=1000)
    parser.add_argument("--horizon", action="store_true")
    options = parser.parse_args()
    with PostgresServer(("shared_buffers = 256MB", "fsync = on", "full_page_writes = on")) as server:
        measure(server, options.messages, options.ready, horizon=options.horizon)


def measure(server: PostgresServer, messages: int, ready: int, *, horizon: bool) -> None:
    """Run and print."""
    store = PostgresOptions(server.url)
    PostgresBroker(store).publish([Message("q", RAW)] * ready)
    owners = [Owner(store, f"o{n}") for n in range(2)]
    with psycopg.connect(server.url) as old:
        if horizon:
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM celeriac.messages")
        for owner in owners:
            owner.start()
        print(
            f"{'messages':>9} {'ms/turn':>8} {'table':>9} {'ready':>9} {'leased':>9} {'results':>9} {'dead':>9} vacuums"
        )
        for step in range(1, 11):
            report(server, owners, messages * step // 10)
        for owner in owners:
            owner.ended = True
            owner.join()


def report(server: PostgresServer, owners: list[Owner], goal: int) -> None:
    """Wait until so many are done; print a line."""
    began, before = time.monotonic(), sum(owner.done for owner in owners)
    while sum(owner.done for owner in owners) < goal:
        time.sleep(0.05)
    done = sum(owner.done for owner in owners)
    turns = (done - before) / BATCH / len(owners)
    ((table, ready, leased, results, dead, vacuums),) = server.execute(SIZES)
    milliseconds = (time.monotonic() - began) / max(turns, 1) * 1000
    print(f"{done:>9,} {milliseconds:>8.1f} {table:>9} {ready:>9} {leased:>9} {results:>9} {dead:>9,} {vacuums:>7}")


if __name__ == "__main__":
    main()
