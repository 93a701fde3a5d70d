"""Send messages with one system's own client; run by that system's Python.

``python -m benchmarks.produce APP each|many|steady`` reads what to do as JSON from standard input and prints what came
of it as JSON.  For ``each`` and ``many`` it is a list of ``{"task": …, "args": […], "count": …}``, in which an argument
``"#"`` stands for the running number; parts marked ``"warm": true`` come first and are not timed.  For ``steady`` it is
``{"rate": per second, "seconds": …}``.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

NUMBER = "#"

WARM_MESSAGES = 20
"""Before the steady ones: a client that connects is not what is measured."""

WARM_PAUSE = 0.5
"""Seconds."""


def arguments(args: list[Any], count: int, first: int) -> Iterator[tuple[Any, ...]]:
    for number in range(first, first + count):
        yield tuple(number if arg == NUMBER else arg for arg in args)


def send(app: Any, how: str, parts: list[dict[str, Any]]) -> dict[str, float]:
    sender = app.send_each if how == "each" else app.send_many
    sent = 0
    started = time.perf_counter()
    for part in parts:
        if part.get("warm"):
            sender(part["task"], arguments(part.get("args", []), part["count"], 0))
            started = time.perf_counter()
            continue
        options = {"countdown": part["countdown"]} if "countdown" in part else {}
        sender(part["task"], arguments(part.get("args", []), part["count"], sent), **options)
        sent += part["count"]
    return {"sent": sent, "seconds": time.perf_counter() - started}


def steady(app: Any, rate: float, seconds: float) -> dict[str, float]:
    """Send at fixed times, however long each send takes: a slow one does not slow down the clock."""
    app.send_each("noop", [()] * WARM_MESSAGES)
    time.sleep(WARM_PAUSE)
    started = time.monotonic()
    count = int(rate * seconds)
    for number in range(count):
        pause = started + number / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        app.send_each("stamp", [(time.time(),)])
    return {"sent": count, "seconds": time.monotonic() - started}


def main() -> None:
    module, how = sys.argv[1:]
    work = json.load(sys.stdin)
    app = importlib.import_module(module)
    outcome = steady(app, **work) if how == "steady" else send(app, how, work)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
