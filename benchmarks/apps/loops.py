"""What the senders of the asyncio systems share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any

try:
    import uvloop
except ImportError:
    uvloop = None


@lru_cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop() if uvloop else asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run in one loop that lives as long as the process, so that connections are kept."""
    return _loop().run_until_complete(work)
