"""Sending from an event loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from celeriac.compat.back_pressure import QueueIsFull
from celeriac.compat.posting import look_pause, without_waiting

T = TypeVar("T")


async def asend(call: Callable[[], T]) -> T:
    """Run a call that sends something in another thread, and again while its queue is full and it is to wait for room.

    Signals that announce a sending are sent for each attempt.  Raises what the call raises.
    """

    def attempt() -> T:
        with without_waiting():
            return call()

    deadline, looks = None, 0
    while True:
        try:
            return await asyncio.to_thread(attempt)
        except QueueIsFull as error:
            now = time.monotonic()
            deadline = now + error.patience if deadline is None else deadline
            if now >= deadline:
                raise
            pause = min(deadline - now, look_pause(looks))
        looks += 1
        await asyncio.sleep(pause)
