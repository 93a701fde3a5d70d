"""The queues that a node consumes.  They may change while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class Subscription:
    """Names of queues, safe to read and to change from any thread."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: tuple[str, ...] = tuple(names)
        """The queues as they are now.  The tuple is never changed, only replaced."""
        self.on_change: Callable[[tuple[str, ...]], None] = lambda _names: None
        """Called with all names after each change, in the thread that made it."""
        self._changing = threading.Lock()

    def add(self, name: str) -> bool:
        """Consume one more queue; return False when it is consumed already."""
        with self._changing:
            if name in self.names:
                return False
            self.names = (*self.names, name)
        self.on_change(self.names)
        return True

    def cancel(self, name: str) -> bool:
        """Consume a queue no more; return False when it was not consumed."""
        with self._changing:
            if name not in self.names:
                return False
            self.names = tuple(each for each in self.names if each != name)
        self.on_change(self.names)
        return True
