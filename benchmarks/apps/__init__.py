"""One app per system, each with the same two functions: ``send_each`` and ``send_many``.

They are imported by the system's own Python, by workers and by :mod:`benchmarks.produce`.  The environment says where:
``BENCH_URL`` the server, ``BENCH_RESULT_URL`` that of the results if it is another, ``BENCH_RESULTS`` ``on`` or ``off``, ``BENCH_QUEUE_TYPE`` of RabbitMQ's queue, ``BENCH_LOG`` the file that task bodies write to.
"""

from __future__ import annotations

import os

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
RESULT_URL = os.environ.get("BENCH_RESULT_URL", URL)
QUEUE_TYPE = os.environ.get("BENCH_QUEUE_TYPE", "classic")
RESULTS = os.environ.get("BENCH_RESULTS") == "on"
