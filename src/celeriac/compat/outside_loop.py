"""Handlers, signal receivers and result stores are synchronous, also those of coroutine tasks.

Called from a coroutine they would meet libraries that refuse to work where an event loop runs: Django's models are one, and
so its result store and the receivers that close its connections.
"""

from __future__ import annotations

from asyncio import _get_running_loop, _set_running_loop  # what event loops themselves use
from types import TracebackType
from typing import Any


class OutsideLoop:
    """For the time of a ``with`` block without ``await`` this thread seems to run no event loop."""

    __slots__ = ("_loop",)

    def __enter__(self) -> None:
        self._loop: Any = _get_running_loop()
        _set_running_loop(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _set_running_loop(self._loop)
