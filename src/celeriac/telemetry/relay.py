"""Takes events from a slot's process to the supervisor: a listener on one side, a receiver on the other.

Task events are added up and travel as one :class:`~celeriac.telemetry.events.TasksMeasured` per task and queue, unless
somebody at the other end wants each of them.  Nothing here ever blocks or grows: sums wait for the next flush, and
single events beyond a bound are dropped and counted.

A packet is ``marshal`` of a list of tuples ``(index of the class, *values)``.  Both ends are the same installation
under the same interpreter, which is what ``marshal`` needs, and the sender is our own child, which is what makes it
safe.
"""

from __future__ import annotations

import errno
import logging
import marshal
import threading
from collections.abc import Callable, Container, Sequence
from enum import Enum
from typing import Any

from celeriac.telemetry.bus import Bus
from celeriac.telemetry.events import EVENTS, Event, EventsDropped
from celeriac.telemetry.tally import Tally

logger = logging.getLogger(__name__)

MAX_PACKET = 48 * 1024
"""Bytes.  Below what a local packet socket takes at once with the kernel's default buffers (208 KB), so that a few
fit before a reader comes by."""

_SORT_AFTER = 1000
"""Events.  Bounds memory and the pause when they are added up, about a millisecond."""

_INDEX: dict[type[Event], int] = {kind: index for index, kind in enumerate(EVENTS)}
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN, errno.ECONNREFUSED})


class Relay:
    """Listens in a slot and sends what it heard when :meth:`flush` is called.

    Subscribe it with ``in_children=False``: a child of the slot must not write to the slot's connection.

    Args:
        send: sends one packet whole, without blocking; raises :class:`BlockingIOError` (or another ``OSError``) when
            it cannot, and has then sent nothing of it.  The ``send`` of a non-blocking ``SOCK_SEQPACKET`` socket is
            one.
        every_task: send task events one by one and not only their sums.  Costs a few microseconds per event at each
            end.
        registered: names of the app's tasks; see :class:`~celeriac.telemetry.tally.Tally`.
        limit: single events held until the next flush.
    """

    def __init__(
        self,
        send: Callable[[bytes], object],
        *,
        every_task: bool = False,
        registered: Container[str] | None = None,
        limit: int = 10_000,
    ) -> None:
        self._send = send
        self._every_task = every_task
        self._limit = limit
        self._tally = Tally(registered)
        self._inbox: list[Event] = []
        """What was heard and not yet looked at.  Anybody appends; only who holds the lock takes from it."""
        self._pending: list[Event] = []
        self._dropped = 0
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take an event.  It costs an append, which needs no lock; the rest is done for many at a time."""
        self._inbox.append(event)
        if len(self._inbox) >= _SORT_AFTER:
            self._sort_if_free()

    def flush(self) -> None:
        """Send what has come together, without waiting for the other end; what could not be sent waits for the next
        flush.  Never raises.  Not for signal handlers: it may wait for a thread that is just adding up."""
        with self._lock:
            unsent = self._deliver(self._take())
            if unsent:
                self._put_back(unsent)

    def _sort_if_free(self) -> None:
        """Never waits: in a signal handler, the one who holds the lock may be the thread that was interrupted."""
        if self._lock.acquire(blocking=False):
            try:
                self._sort()
            finally:
                self._lock.release()

    def _sort(self) -> None:
        """Add up what can be added up, and hold the rest for the next flush."""
        heard = self._inbox[:]
        del self._inbox[: len(heard)]
        self._hold(heard if self._every_task else [event for event in heard if not self._add(event)])

    def _add(self, event: Event) -> bool:
        try:
            return self._tally.add(event)
        except Exception:  # a value of the wrong type must not reach the slot's loop through a flush
            logger.exception("This event cannot be added up: %r", event)
            return True

    def _take(self) -> list[Event]:
        self._sort()
        events, self._pending = self._pending, []
        events += self._tally.drain()
        if self._dropped:
            events.append(EventsDropped(self._dropped))
            self._dropped = 0
        return events

    def _deliver(self, events: Sequence[Event]) -> list[Event]:
        """Send packets until one does not go out; return the events that remain."""
        for sent, packet in self._packets(events):
            try:
                self._send(packet)
            except OSError as error:
                return [] if error.errno in _GONE else list(events[sent:])
        return []

    def _packets(self, events: Sequence[Event]) -> list[tuple[int, bytes]]:
        """Split events into packets, each with how many events went before it."""
        packets: list[tuple[int, bytes]] = []
        work = [(0, len(events))] if events else []
        while work:
            start, end = work.pop()
            packet = encode(events[start:end])
            if len(packet) <= MAX_PACKET:
                packets.append((start, packet))
            elif end - start == 1:
                self._dropped += 1
            else:
                middle = (start + end) // 2
                work += [(middle, end), (start, middle)]
        return packets

    def _put_back(self, events: Sequence[Event]) -> None:
        self._hold([event for event in events if not self._restore(event)])

    def _restore(self, event: Event) -> bool:
        """Take a sum back into the sums."""
        if isinstance(event, EventsDropped):
            self._dropped += event.events
            return True
        return not self._every_task and self._tally.add(event)

    def _hold(self, events: Sequence[Event]) -> None:
        room = max(0, self._limit - len(self._pending))
        self._pending.extend(events[:room])
        self._dropped += len(events[room:])


def encode(events: Sequence[Event]) -> bytes:
    """Events as one packet."""
    rows = [(_INDEX[type(event)], *event) for event in events]
    try:
        return marshal.dumps(rows)
    except ValueError:  # an enum or another subclass of a plain type
        return marshal.dumps([tuple(_plain(value) for value in row) for row in rows])


def decode(packet: bytes) -> list[Event]:
    """The events of a packet from :func:`encode`.

    Raises:
        ValueError: the packet is cut or is not one of ours.
    """
    try:
        return [EVENTS[index]._make(values) for index, *values in marshal.loads(packet)]
    except (EOFError, TypeError, IndexError) as error:
        raise ValueError(f"not a telemetry packet: {error}") from error


def receive(packet: bytes, bus: Bus) -> None:
    """Emit a packet's events on the supervisor's bus.  Raises ``ValueError`` as :func:`decode` does."""
    if bus.listening:
        for event in decode(packet):
            bus.emit(event)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each) for each in value)
    if value is None or isinstance(value, (bool, bytes)):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)
