"""Delayed delivery by the server itself: a message moves from level to level until its time has come (docs/decisions/0013-delays.md)."""

from __future__ import annotations

import time

from pamqp.base import Frame

from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.methods import bind_exchange, bind_queue, declare_exchange, declare_queue
from celeriac.brokers.rabbitmq.options import QUORUM
from celeriac.brokers.rabbitmq.own_queues import Arguments, declare
from celeriac.brokers.rabbitmq.topology import Topology, telling_objections
from celeriac.errors import ConfigurationError

LEVELS = 32
TICK = 0.01
"""Seconds.  A delay is a number of ticks, and each of its binary digits that is 1 is a stay in the queue of that digit:
32 of them are 1.4 years."""

DUE = "celeriac.due"
"""The exchange that delayed messages come out of."""


def level_name(level: int) -> str:
    """Exchange and queue in which a message stays ``TICK * 2**level`` seconds."""
    return f"celeriac.delay.{level}"


def ticks_until(due: float, now: float | None = None) -> int:
    """Whole ticks until a moment (seconds since the epoch), rounded up; 0 when it is past."""
    left = due - (time.time() if now is None else now)
    ticks: int = min(max(0, -int(-left // TICK)), (1 << LEVELS) - 1)
    return ticks


def delay_word(queue: str) -> str:
    """A queue's name as one word of a routing key."""
    plain = queue.isascii() and queue.replace("-", "").replace("_", "").isalnum()
    return queue if plain else "=" + queue.encode().hex()


def delay_route(queue: str, ticks: int) -> tuple[str, str]:
    """Exchange and routing key for a message that is due in so many ticks (at least one)."""
    key = ".".join(f"{ticks:0{LEVELS}b}") + "." + delay_word(queue)
    if len(key) > 255:
        raise ConfigurationError(f"The name of the queue {queue!r} is too long for delayed messages")
    return level_name(ticks.bit_length() - 1), key


def delayed_queue(exchange: str, routing_key: str) -> str | None:
    """The queue for which a message was delayed; ``None`` for one that was not."""
    words = routing_key.split(".", LEVELS)
    if not exchange.startswith("celeriac.delay.") or len(words) <= LEVELS:
        return None
    word = words[LEVELS]
    return bytes.fromhex(word[1:]).decode() if word.startswith("=") else word


def delay_methods(kind: Arguments) -> list[Frame]:
    """Declarations of all levels, of a type."""
    methods: list[Frame] = [declare_exchange(DUE, "topic")]
    for level in range(LEVELS):
        name = level_name(level)
        following = level_name(level - 1) if level else DUE
        skipped = "*." * (LEVELS - 1 - level)
        arguments = {
            "x-message-ttl": round(TICK * 1000) << level,
            "x-dead-letter-exchange": following,
            **kind,
        }
        if kind.get("x-queue-type") == QUORUM:
            # Else what is on its way to the next level when its leader dies is lost.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        methods += [
            declare_exchange(name, "topic"),
            declare_queue(name, arguments),
            bind_queue(name, name, f"{skipped}1.#"),
            bind_exchange(following, name, f"{skipped}0.#"),
        ]
    return methods


class Delays:
    """The levels, and which queues they lead to."""

    def __init__(self, topology: Topology, connection: Connection) -> None:
        self._topology = topology
        self._connection = connection
        self._bound: set[str] = set()
        self._since = -1.0

    def need(self, queue: str) -> None:
        """See to it that delayed messages find their way into this queue."""
        if self._since != self._connection.connected_at:
            self._bound.clear()
        if queue in self._bound:
            return
        if not self._topology.is_ours(queue):
            self._topology.need(queue)
            self._bound.add(queue)
            self._since = self._connection.connected_at
            return
        self._topology.need(queue)
        if not self._bound:
            with telling_objections("celeriac.delay.*"):
                declare(self._connection, "celeriac.delay.*", delay_methods)
        self._topology.call("celeriac.delay", bind_queue(queue, DUE, "*." * LEVELS + delay_word(queue)))
        self._since = self._connection.connected_at
        self._bound.add(queue)

    def count(self) -> int:
        """Delayed messages, of all queues."""
        return sum(self._counts(self._connection))

    @staticmethod
    def _counts(connection: Connection) -> list[int]:
        try:
            answers = connection.call(*(declare_queue(level_name(level), passive=True) for level in range(LEVELS)))
        except ChannelClosed:  # nothing was ever delayed
            return []
        return [answer.message_count for answer in answers]

    def first(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """Messages that wait for a queue: the earliest time that each can be due (seconds since the epoch), and its envelope.

        At most ``limit`` of each level are looked at.  Looking means taking them and giving them back: each goes where it was, and
        what is due meanwhile moves on the moment it is back.
        """
        connection = Connection(self._connection.options, "looks at delayed messages")
        try:
            taken = [
                (level, got)
                for level, count in enumerate(self._counts(connection))
                for got in connection.get(level_name(level).encode(), min(count, limit))
            ]
        finally:
            connection.abandon()  # with which the server puts all of them back
        word, now, found = delay_word(queue), time.time(), []
        for level, got in taken:
            *digits, last = wire.routing_key(got.route).split(".")
            if last == word:
                left = int("".join(digits[LEVELS - level :]) or "0", 2)
                raw = wire.parcel(0, wire.FROM_DELAY, queue.encode(), *wire.content(got.raw))
                found.append((now + left * TICK, raw))
        return sorted(found)[:limit]
