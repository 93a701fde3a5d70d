"""Processes that are killed at any moment lose nothing on the SQLite store, and leave nothing in two places."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager

from celeriac.backends.sqlite import SQLiteBackend
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.outcome import Outcome, State
from tests.conformance.kits import QUEUE, TTL, done, messages, owner_of, places, raws
from tests.helpers import wait_until
from tests.test_sqlite_state import consistent

WORKER = """
    import sys
    from celeriac.brokers.sqlite import SQLiteBroker
    from celeriac.message import Message
    from celeriac.outcome import DeadLetter, Outcome, Result, State
    path, owner = sys.argv[1:]
    broker = SQLiteBroker(path)
    broker.register(owner, ["images"], 60)
    outcomes = []
    while True:
        _, deliveries = broker.turn(owner, outcomes, ["images"], 7)
        if not deliveries:
            broker.wait(["images"], 1)
        # Each message n becomes the next step of itself in another queue, with a result.
        outcomes = [
            Outcome(d, State.SUCCEEDED, results=(Result(d.raw.decode(), "SUCCESS", d.raw),),
                    publish=(Message("receipts", d.raw),))
            for d in deliveries
        ]
        print(len(deliveries), flush=True)
"""

ROUNDS, MESSAGES = 6, 1500


@contextmanager
def running(code, *arguments):
    """A process with this code, killed at the end if not before."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def rescue(broker, owner):
    broker.condemn(owner)
    held = broker.leased(owner)
    outcomes = [Outcome(delivery, State.INTERRUPTED, requeue=delivery.raw) for delivery in held]
    assert broker.settle_condemned(owner, outcomes).fenced == 0
    assert broker.unregister(owner)


def kill_after(worker, turns):
    for _ in range(turns):
        worker.stdout.readline()
    worker.kill()
    worker.wait(10)


def run_and_kill_two(path, broker, chance):
    owners = [f"worker-{chance.random()}" for _ in range(2)]
    with running(WORKER, path, owners[0]) as first, running(WORKER, path, owners[1]) as second:
        for worker, owner in ((first, owners[0]), (second, owners[1])):
            kill_after(worker, chance.randrange(1, 30))
            rescue(broker, owner)


def test_workers_killed_in_the_middle_of_turns_lose_and_double_nothing(tmp_path):
    path = tmp_path / "celeriac.sqlite3"
    chance = random.Random(7)
    with closing(SQLiteBroker(path)) as broker, closing(SQLiteBackend(path)) as backend:
        total = 0
        for _ in range(ROUNDS):
            broker.publish(messages(*(str(total + n) for n in range(MESSAGES))))
            total += MESSAGES
            run_and_kill_two(path, broker, chance)
            assert places(broker, [QUEUE, "receipts"]) == total
            broker.file.read(consistent)
        with running(WORKER, path, "last") as last:
            wait_until(lambda: broker.depth(["receipts"])[0].ready == total, timeout=60)
            kill_after(last, 0)
        rescue(broker, "last")
        owner = owner_of(broker, ["receipts"])
        receipts = broker.lease(owner, ["receipts"], 2 * total)
        assert sorted(int(raw) for raw in raws(receipts)) == list(range(total))
        assert None not in backend.fetch([str(n) for n in range(total)])
        broker.settle(owner, done(*receipts))
        assert places(broker, [QUEUE, "receipts"]) == 0


PUBLISHER = """
    import sys
    from celeriac.brokers.sqlite import SQLiteBroker
    from celeriac.message import Message
    broker = SQLiteBroker(sys.argv[1])
    for n in range(1_000_000):
        broker.publish([Message("images", b"%d.%d" % (n, k)) for k in range(3)])
        print(n, flush=True)
"""


def test_what_a_killed_publisher_was_told_is_sent_is_there_and_no_call_is_half_done(tmp_path):
    path = tmp_path / "celeriac.sqlite3"
    for _ in range(5):
        with running(PUBLISHER, path) as publisher:
            for _ in range(20):
                confirmed = int(publisher.stdout.readline())
            kill_after(publisher, 0)
        with closing(SQLiteBroker(path)) as broker:
            broker.register("drain", [QUEUE], TTL)
            deliveries = broker.lease("drain", [QUEUE], 10_000)
            assert len(deliveries) % 3 == 0
            assert len(deliveries) // 3 >= confirmed + 1
            broker.settle("drain", done(*deliveries))
            assert broker.unregister("drain")
