"""An app with a bounded queue, and as a program: 25 threads that send to it as fast as they can.

``python -m tests.apps.bounded NAME COUNT``: each thread sends so many messages and waits for room.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from kombu import Queue

from celeriac import Celery
from tests.apps.survival import record

BOUND = 20
THREADS = 25

app = Celery("bounded", broker=os.environ.get("TEST_BROKER", "sqlite:///unused.sqlite3"), set_as_current=False)
app.conf.update(
    task_queues=[Queue("bulk", max_length=BOUND), Queue("celery")],
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=1,  # what is held unstarted may be handed back, and make the queue longer than its bound
    celeriac_queue_full="block",
    celeriac_queue_full_timeout=60,
)


@app.task(name="bounded.note")
def note(key):
    record("ran", key)


def send(name, count):
    for n in range(count):
        note.apply_async((f"{name}-{n}",), queue="bulk")


if __name__ == "__main__":
    with ThreadPoolExecutor(THREADS) as pool:
        for thread in range(THREADS):
            pool.submit(send, f"{sys.argv[1]}-{thread}", int(sys.argv[2]))
