"""Owners and their notes, in queues of RabbitMQ.

::

    celeriac.registry        one message: the names of all owners, their queues, and which of them are condemned
    celeriac.lease.<owner>   the owner's note (see :mod:`celeriac.brokers.rabbitmq.notes`); the newest replaces the one before
    celeriac.beat.<owner>    a message that lives as long as the owner's last beat allows
    celeriac.settled         digests of messages that were settled by others than those who held them; each lives for a while
    celeriac.owners          the exchange that leads into the first two kinds.  A condemned owner is no longer bound to it, so
                             that whatever it still writes comes back to it as undeliverable
    celeriac.lock            exists while somebody works on all this

The queues are durable and survive a restart of the server; notes are not written to disk.  An owner that finds itself connected
anew writes its note again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pamqp.base import Frame

from celeriac.brokers.rabbitmq import notes, properties, wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import WORK, Connection
from celeriac.brokers.rabbitmq.methods import (
    bind_queue,
    declare_exchange,
    declare_lock,
    declare_queue,
    delete_queue,
    unbind_queue,
)
from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.brokers.rabbitmq.own_queues import Arguments, declare, kinds
from celeriac.brokers.rabbitmq.wire import Entry
from celeriac.errors import StoreUnavailable
from celeriac.message import Delivery

EXCHANGE, REGISTRY, SETTLED, LOCK = "celeriac.owners", "celeriac.registry", "celeriac.settled", "celeriac.lock"

SETTLED_SECONDS = 900
"""How long it is remembered that a message was settled by somebody else.  It only matters while the message is on its way back
from a lost connection."""

SETTLED_BATCHES = 2000

ABANDONED_SECONDS = 7 * 86_400
"""Queues of an owner that nobody rescues go by themselves."""

RESCUE_CUT_SHORT_AFTER = 10.0
"""Seconds after which the messages of a condemned owner are anybody's to rescue.  Until then they are left to whoever
condemned it, who may know which of them had started."""

LOCK_SECONDS = 2.0
"""Heartbeat of a connection that has the lock: a holder that fell silent loses it after about twice as long.  Less would take it
from one that is only slow."""

TRANSIENT = properties.encode({"delivery_mode": 1})
PERSISTENT = properties.encode({"delivery_mode": 2})

Registry = dict[str, dict[str, Any]]
"""For each owner its ``queues``, and when it was ``condemned`` (seconds since the epoch)."""


def _declarations(kind: Arguments) -> list[Frame]:
    lasting = {"x-message-ttl": SETTLED_SECONDS * 1000, "x-max-length": SETTLED_BATCHES}
    return [
        declare_exchange(EXCHANGE, "direct"), declare_queue(REGISTRY, kind), declare_queue(SETTLED, {**lasting, **kind}),
    ]  # fmt: skip


def lease_queue(owner: str) -> str:
    """Where an owner's note lies."""
    return f"celeriac.lease.{owner}"


def beat_queue(owner: str) -> str:
    """Where an owner's beat lies."""
    return f"celeriac.beat.{owner}"


def note_entry(owner: str, body: bytes) -> Entry:
    """A note on its way."""
    return Entry(EXCHANGE.encode(), owner.encode(), TRANSIENT, body)


def beat_entry(owner: str, ttl: float) -> Entry:
    """A beat on its way."""
    lasting = properties.encode({"delivery_mode": 1, "expiration": str(max(1, int(ttl * 1000)))})
    return Entry(EXCHANGE.encode(), b"beat:" + owner.encode(), lasting, b"")


class Owners:
    """Reads and writes what the server keeps about owners.

    Each turn with the lock has a connection of its own, which the server gives up soon: a process that is paused or cut off with the
    lock in its hands must not stop the others.
    """

    def __init__(self, options: RabbitOptions, publishing: Connection) -> None:
        self._connection = Connection(replace(options, heartbeat=LOCK_SECONDS), "looks at owners")
        self._connection.beats = True
        self._publishing = publishing
        self._declared_at = -1.0

    @property
    def round_trips(self) -> int:
        """Of the turns with the lock."""
        return self._connection.round_trips

    # -- one at a time ---------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[Registry]:
        """Have the registry to oneself, among all processes; changes to what is yielded are written back.

        If the holder dies, its connection closes, and both the lock and what it had taken are free again.
        """
        connection = self._connection
        with connection.lock:
            try:
                self._declare()
                self._acquire()
                connection.pinned = True
                taken = connection.get(REGISTRY.encode(), 100)
                registry: Registry = {}
                for got in taken:
                    registry.update(json.loads(wire.content(got.raw)[1]))
                before = json.dumps(registry)
                yield registry
                self._write_back(taken, before, registry)
                connection.call(delete_queue(LOCK))
            finally:
                connection.abandon()  # with which the server frees whatever is left

    def _acquire(self) -> None:
        deadline = time.monotonic() + max(self._connection.options.answer_timeout, 4 * LOCK_SECONDS)
        pause = 0.002
        while True:
            try:
                self._connection.call(declare_lock(LOCK))
            except ChannelClosed as error:
                if error.code != 405:
                    raise
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"{LOCK} was held by another process for too long") from error
                time.sleep(pause)
                pause = min(pause * 2, 0.02)
            else:
                return

    def _write_back(self, taken: Sequence[wire.Gotten], before: str, registry: Registry) -> None:
        connection = self._connection
        after = json.dumps(registry)
        if after != before or len(taken) != 1:
            _write(connection, [Entry(b"", REGISTRY.encode(), PERSISTENT, after.encode())])
            connection.send(wire.ack_frame(WORK, got.tag, multiple=False) for got in taken)
        else:
            connection.send([wire.requeue_frame(WORK, taken[0].tag, multiple=False)])

    def _declare(self) -> None:
        """Once for each connection that publishes: with a new one it may be another server."""
        self._publishing.ensure()
        if self._declared_at != self._publishing.connected_at:
            declare(self._publishing, f"{REGISTRY} or {SETTLED}", _declarations)
            self._declared_at = self._publishing.connected_at

    # -- owners ----------------------------------------------------------------------------------------------------

    def add(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """Make an owner known."""
        with self.locked() as registry:
            if owner in registry:
                return
            kind = kinds(self._publishing.options.queue_type, self._publishing.server_version)[0]
            arguments = {"x-max-length": 1, "x-expires": ABANDONED_SECONDS * 1000, **kind}
            methods = []
            for name, key in ((lease_queue(owner), owner), (beat_queue(owner), f"beat:{owner}")):
                methods.append(declare_queue(name, arguments))
                methods.append(bind_queue(name, EXCHANGE, key))
            self._connection.call(*methods)
            _write(self._connection, [beat_entry(owner, ttl)])
            registry[owner] = {"queues": list(queues)}

    def remove(self, owner: str) -> bool:
        """Forget an owner; return False if its note lists something."""
        with self.locked() as registry:
            if owner in registry:
                if self.read(owner):
                    return False
                self._connection.call(delete_queue(lease_queue(owner)), delete_queue(beat_queue(owner)))
                del registry[owner]
        return True

    def condemn(self, owner: str) -> None:
        """Fence an owner off."""
        with self.locked() as registry:
            known = registry.get(owner)
            if known is None or "condemned" in known:
                return
            self._connection.call(
                unbind_queue(lease_queue(owner), EXCHANGE, owner),
                unbind_queue(beat_queue(owner), EXCHANGE, f"beat:{owner}"),
            )
            known["condemned"] = time.time()

    def alive(self, owners: Sequence[str]) -> set[str]:
        """Those that are known and not condemned."""
        with self.locked() as registry:
            return {owner for owner in owners if "condemned" not in registry.get(owner, {"condemned": 0})}

    def expired(self, limit: int) -> list[str]:
        """Owners whose beat has run out, and condemned ones whose rescue was cut short."""
        found: list[str] = []
        with self.locked() as registry:
            for owner, known in registry.items():
                if len(found) >= limit:
                    break
                condemned = known.get("condemned")
                if condemned is None:
                    late = not self._beats(owner)
                else:
                    late = time.time() - condemned > RESCUE_CUT_SHORT_AFTER and bool(self.read(owner))
                if late:
                    found.append(owner)
        return found

    def served(self) -> set[str]:
        """Queues that some owner serves, alive or not."""
        with self.locked() as registry:
            return {queue for known in registry.values() for queue in known["queues"]}

    def _beats(self, owner: str) -> bool:
        (answer,) = self._connection.call(declare_queue(beat_queue(owner), passive=True))
        return bool(answer.message_count)

    def consumers(self, queues: Sequence[str]) -> dict[str, int]:
        """Live owners of each queue."""
        counts = dict.fromkeys(queues, 0)
        with self.locked() as registry:
            for owner, known in registry.items():
                serves = [queue for queue in known["queues"] if queue in counts]
                if serves and "condemned" not in known and self._beats(owner):
                    for queue in serves:
                        counts[queue] += 1
        return counts

    # -- notes -----------------------------------------------------------------------------------------------------

    def read(self, owner: str) -> list[Delivery]:
        """An owner's note; call it with the lock held."""
        name = lease_queue(owner).encode()
        taken = self._connection.get(name, 10)
        if not taken:
            return []
        self._give_back(taken)
        return notes.decode_note(wire.content(taken[-1].raw)[1])

    def _give_back(self, taken: Sequence[wire.Gotten]) -> None:
        # One by one: the registry's message is held as well.
        self._connection.send(wire.requeue_frame(WORK, got.tag, multiple=False) for got in taken)

    def note(self, owner: str) -> list[Delivery]:
        """What an owner's note lists; nothing if it is unknown."""
        with self.locked() as registry:
            return self.read(owner) if owner in registry else []

    def note_count(self) -> int:
        """How much all notes list."""
        with self.locked() as registry:
            return sum(len(self.read(owner)) for owner in registry)

    def rewrite(self, owner: str, left: Iterable[Delivery], settled: Sequence[bytes]) -> None:
        """Replace a condemned owner's note, and remember that messages were settled; call it with the lock held."""
        entries = settled_entries(settled)
        entries.append(Entry(b"", lease_queue(owner).encode(), PERSISTENT, notes.encode(left)))
        _write(self._connection, entries)

    def remember_settled(self, raws: Sequence[bytes]) -> None:
        """Remember messages that are settled although they may come back."""
        self._declare()
        _write(self._publishing, settled_entries(raws))

    def look_up(self, raws: Sequence[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Which of these messages are in an owner's note, and which were settled by others; by their :func:`key_of`."""
        wanted = {key_of(raw) for raw in raws}
        kinds = [notes.quick_identity] if not all(map(notes.is_counted, raws)) else []
        if any(map(notes.is_counted, raws)):
            kinds.append(notes.full_identity)
        held: set[bytes] = set()
        with self.locked() as registry:
            for owner in registry:
                held |= {kind(delivery.raw) for delivery in self.read(owner) for kind in kinds} & wanted
            return held, self._settled() & wanted

    def _settled(self) -> set[bytes]:
        taken = self._connection.get(SETTLED.encode(), SETTLED_BATCHES)
        if not taken:
            return set()
        self._give_back(taken)
        size = notes.DIGEST
        bodies = [wire.content(got.raw)[1] for got in taken]
        return {body[at : at + size] for body in bodies for at in range(0, len(body), size)}


def _write(connection: Connection, entries: Sequence[Entry]) -> None:
    if connection.publish(entries).refused:
        connection.renew()
        raise StoreUnavailable(
            f"RabbitMQ did not take what is kept about workers: a queue of {EXCHANGE} is away for now"
        )


def key_of(raw: bytes) -> bytes:
    """What a message that was delivered before is looked up by."""
    return notes.full_identity(raw) if notes.is_counted(raw) else notes.quick_identity(raw)


def settled_entries(raws: Sequence[bytes]) -> list[Entry]:
    """The message that says that others were settled."""
    if not raws:
        return []
    body = b"".join(each for raw in raws for each in notes.identities(raw))
    return [Entry(b"", SETTLED.encode(), PERSISTENT, body)]
