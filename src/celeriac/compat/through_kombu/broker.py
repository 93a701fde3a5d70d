"""The contract of :mod:`celeriac.broker` over any transport of kombu's: slower than an engine of our own, with the guarantees that
the transport has.

A lease is a message that its slot's process has taken and not acknowledged.  Where the transport keeps such messages it gives
them away again when their process is gone; where it does not, a journal on this machine does (``compat/through_kombu/journal.py``).
What follows a task is sent before its message is acknowledged, so that nothing is lost in between and something may be sent twice.
Messages that are not due are held unacknowledged by the slot that met them, as Celery's own worker does it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kombu import Queue
from kombu.exceptions import KombuError
from kombu.utils.url import maybe_sanitize_url

from celeriac.backend import Backend
from celeriac.broker import Broker, DeadMessage, Depth
from celeriac.compat.through_kombu import dead
from celeriac.compat.through_kombu.journal import Journal, directory_of, is_abandoned, journals
from celeriac.compat.through_kombu.leases import Held, Leases
from celeriac.compat.through_kombu.messages import identity, publish, raw_of
from celeriac.compat.through_kombu.traits import DEAD_QUEUE, Traits, traits_of
from celeriac.compat.through_kombu.visibility import Visibility
from celeriac.errors import ConfigurationError, StoreError, StoreUnavailable
from celeriac.message import Delivery, Message
from celeriac.outcome import Outcome, Settlement, State

logger = logging.getLogger("celeriac.engine")


class KombuBroker(Broker):
    """Queues of a kombu transport.  One object serves one owner at most."""

    knows_owners = False

    acknowledges_apart = True

    def __init__(self, app: Any, url: str) -> None:
        """Connects at first use.

        Raises:
            ConfigurationError: what the transport needs is not installed.
        """
        self.url = maybe_sanitize_url(url)
        self.traits: Traits = traits_of(url)
        self.best_batch = self.traits.batch
        self.round_trips = 0
        self._app = app
        self._directory = directory_of(url)
        self._lock = threading.RLock()
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[str] = set()
        self._leases = Leases(self.traits)
        self._visibility = Visibility(self._leases) if self.traits.visibility else None
        interval = app.conf.broker_transport_options.get("polling_interval")
        self._pause = self.traits.pause if interval is None else float(interval)

    # -- the connection --------------------------------------------------------------------------------------------

    @contextmanager
    def _talking(self) -> Iterator[Any]:
        """The channel, for one thread at a time; what goes wrong in our own words."""
        with self._lock:
            try:
                yield self._open()
            except self._errors() as error:
                self._give_up()
                raise StoreUnavailable(f"{self.url} is not available: {error}") from error
            except NotImplementedError as error:
                raise StoreError(f"{self.url} cannot do this: {error}") from error
            except KombuError as error:
                raise StoreError(f"{self.url} answered: {error}") from error

    def _open(self) -> Any:
        self.round_trips += 1
        if self._channel is None:
            if self._connection is None:
                self._connection = self._app.connection_for_read()
                options = self._connection.transport_options
                if self.traits.visibility:
                    options.setdefault("wait_time_seconds", 0)  # this thread has outcomes to settle, too
                if self.traits.session:
                    options.setdefault("confirm_publish", True)
            self._channel = self._connection.channel()
            if self.traits.in_order:
                self._channel.wait_time_seconds = self._pause
        return self._channel

    def _errors(self) -> tuple[type[BaseException], ...]:
        connection = self._connection
        if connection is None:
            return (OSError,)
        return (OSError, *connection.connection_errors, *connection.channel_errors)

    def _give_up(self) -> None:
        """The next call connects anew.  What was given away over the connection is void, where it is bound to that."""
        connection, self._channel = self._connection, None
        self._declared.clear()
        if self.traits.session:
            self._connection = None
            self._leases.void()
            with suppress(Exception):  # it is broken; closing it may say so
                connection.collapse()

    def _queue(self, channel: Any, name: str) -> Any:
        """The queue's declaration, declared."""
        known = self._app.amqp.queues
        queue = known[name] if name in known or name != DEAD_QUEUE else Queue(name, durable=True)
        bound = queue(channel)
        if name not in self._declared:
            bound.declare()
            self._declared.add(name)
        return bound

    # -- sending ---------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`Broker.publish`.  One by one: a failure in the middle leaves the first ones sent."""
        with self._talking() as channel:
            for message in messages:
                self._publish(channel, message)

    def _publish(self, channel: Any, message: Message, **headers: Any) -> None:
        self._queue(channel, message.queue)
        self.round_trips += 1
        publish(channel, message, **headers)

    # -- lease, settle, release ------------------------------------------------------------------------------------

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`: a round trip for each message and for each acknowledgement."""
        fenced = 0
        with self._talking() as channel:
            for outcome in outcomes:
                fenced += not self._settle(channel, outcome)
            self._leases.acknowledge_in_order()
            leased = self._leases.due(limit)
            if queues and limit > len(leased):
                leased += self._take(channel, queues, min(limit - len(leased), self.traits.batch))
        return Settlement(fenced), leased

    def _take(self, channel: Any, queues: Sequence[str], limit: int) -> list[Delivery]:
        leased: list[Delivery] = []
        for name in queues:
            queue = self._queue(channel, name)
            while len(leased) < limit:
                self.round_trips += 1
                try:
                    message = queue.get(no_ack=False)
                except ValueError as error:  # not even kombu can read it, so it cannot be kept either
                    logger.error(
                        "A message of %s is no message of kombu's, and %s has dropped it: %s", name, self.url, error
                    )
                    continue
                if message is None:
                    break
                delivery = self._keep(message, name)
                if delivery is not None:
                    leased.append(delivery)
        return leased

    def _keep(self, message: Any, queue: str) -> Delivery | None:
        raw = raw_of(message, queue)
        known = dead.recall(self._directory, identity(raw)) if self.traits.keeps else None
        if known == dead.SETTLED:
            message.ack()
            return None
        held = self._leases.add(message, queue, known or raw)
        if not self.traits.keeps:
            message.ack()
        return held.delivery

    def _settle(self, channel: Any, outcome: Outcome) -> bool:
        held = self._leases.get(outcome.delivery.tag)
        if held is None:
            return False
        if outcome.state is State.SNOOZED and self._park(held, outcome):
            return True
        self._write(channel, outcome)
        if outcome.requeue is not None:
            self._requeue(channel, held, outcome.requeue)
        else:
            self._leases.finish(held)
        return True

    def _write(self, channel: Any, outcome: Outcome) -> None:
        for message in outcome.publish:
            self._publish(channel, message)
        if outcome.dead is not None:
            delivery = outcome.delivery
            dead.bury(lambda message, **headers: self._publish(channel, message, **headers), delivery, outcome.dead)

    def _park(self, held: Held, outcome: Outcome) -> bool:
        """Hold a message that is not due; return False when it is not the same one."""
        if len(outcome.publish) != 1 or outcome.dead or outcome.publish[0].raw != held.delivery.raw:
            return False
        due = outcome.publish[0].due or 0.0
        if self._visibility is not None and not held.taken:
            self._visibility.hide(held, due - time.time())
            self._leases.forget(held)
        else:
            self._leases.park(held, due)
        return True

    def _requeue(self, channel: Any, held: Held, raw: bytes) -> None:
        if held.taken or raw != held.delivery.raw:
            self._publish(channel, Message(held.delivery.queue, raw))
            self._leases.finish(held)
        else:
            held.message.requeue()
            self._leases.forget(held)

    def acknowledge(self, owner: str, tag: int) -> None:
        """See :meth:`Broker.acknowledge`."""
        held = self._leases.get(tag)
        if held is not None:
            with self._talking():
                self._leases.take(held)

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`.  Where the transport has no head of a queue to put them, to its tail."""
        released = 0
        with self._talking() as channel:
            for tag in tags:
                held = self._leases.get(tag)
                if held is not None:
                    self._requeue(channel, held, held.delivery.raw)
                    released += 1
        return released

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`: there is nothing to wait for without taking it, so slots look again after a pause."""
        time.sleep(min(timeout, self._pause))
        return True

    # -- owners ----------------------------------------------------------------------------------------------------

    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """See :meth:`Broker.register`."""
        with self._talking() as channel:
            for name in queues:
                self._queue(channel, name)
                if self._visibility is not None:
                    self._visibility.learn(channel, name)
        journal = Journal(self._directory, owner)
        journal.open(ttl)
        self._leases.begin(journal)
        if self._visibility is not None:
            self._visibility.start()

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`.  Nobody else can take an owner's messages over while its process lives."""
        for owner in owners:
            Journal(self._directory, owner).touch()
        return []

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`.  What is not due goes back."""
        if self._leases.is_of(owner):
            self.release(owner, self._leases.parked())
            if self._leases.tags():
                return False
            self._leases.end()
            return True
        journal = Journal(self._directory, owner)
        if journal.held():
            return False
        journal.remove()
        return True

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`: owners of this machine only."""
        return [journal.owner for journal in journals(self._directory) if is_abandoned(journal)][:limit]

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`: its process is dead, which fences it off for good."""

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`."""
        if self._leases.is_of(owner):
            return self._leases.deliveries()[:limit]
        return [entry.delivery for entry in Journal(self._directory, owner).held().values()][:limit]

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`.  What the transport keeps it gives away again by itself."""
        fenced = 0
        with self._talking() as channel, Journal(self._directory, owner).rescued() as journal:
            held = journal.held()
            for outcome in outcomes:
                entry = held.pop(outcome.delivery.tag, None)
                if entry is None:
                    fenced += 1
                    continue
                self._write(channel, outcome)
                if entry.taken:
                    if outcome.requeue is not None:
                        self._publish(channel, Message(entry.delivery.queue, outcome.requeue))
                elif outcome.requeue != entry.delivery.raw:
                    settled = dead.SETTLED if outcome.requeue is None else outcome.requeue
                    dead.note(self._directory, identity(entry.delivery.raw), settled)
                journal.done(outcome.delivery.tag)
        return Settlement(fenced)

    # -- schedule and looking --------------------------------------------------------------------------------------

    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """See :meth:`Broker.promote`: there is no schedule beside what slots hold."""
        return 0, None

    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """See :meth:`Broker.depth`.  What is not due is counted as leased, and only owners of this machine are known."""
        consumers = sum(not is_abandoned(journal) for journal in journals(self._directory))
        return [Depth(name, self._size(name), 0, consumers, None) for name in queues]

    def _size(self, name: str) -> int:
        with self._talking() as channel:
            self._queue(channel, name)
            return int(channel.queue_declare(queue=name, passive=True).message_count)

    def leased_count(self) -> int:
        """See :meth:`Broker.leased_count`: on this machine."""
        return sum(len(journal.held()) for journal in journals(self._directory))

    def purge(self, queue: str) -> int:
        """See :meth:`Broker.purge`."""
        with self._talking() as channel:
            return int(self._queue(channel, queue).purge() or 0)

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead_count(self) -> int:
        """See :meth:`Broker.dead_count`."""
        return self._size(DEAD_QUEUE)

    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """See :meth:`Broker.dead_letters`: all are taken out and put back, which hides them from others for a moment."""
        with self._talking() as channel, dead.opened(self._queue(channel, DEAD_QUEUE)) as letters:
            found = sorted((dead.read(letter) for letter in letters), key=lambda each: each.id, reverse=True)
        return [each for each in found if before is None or each.id < before][:limit]

    def dead_letter(self, id: str) -> DeadMessage | None:
        """See :meth:`Broker.dead_letter`."""
        return next((each for each in self.dead_letters(dead.MOST) if each.id == id), None)

    def replay(self, id: str, message: Message | None = None) -> bool:
        """See :meth:`Broker.replay`."""
        with self._talking() as channel, dead.opened(self._queue(channel, DEAD_QUEUE)) as letters:
            for letter in letters:
                found = dead.read(letter)
                if found.id == id:
                    self._publish(channel, message or Message(found.queue, found.raw))
                    letter.ack()
                    return True
        return False

    def discard(self, ids: Iterable[str]) -> int:
        """See :meth:`Broker.discard`."""
        wanted, count = set(ids), 0
        with self._talking() as channel, dead.opened(self._queue(channel, DEAD_QUEUE)) as letters:
            for letter in letters:
                if dead.read(letter).id in wanted:
                    letter.ack()
                    count += 1
        return count

    # -- the rest --------------------------------------------------------------------------------------------------

    def shares_store(self, backend: Backend | None) -> bool:
        """See :meth:`Broker.shares_store`."""
        return False

    def ping(self) -> None:
        """See :meth:`Broker.ping`.

        Raises:
            ConfigurationError: the transport does not take the URL or its options.
        """
        try:
            with self._talking():
                pass
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{self.url} cannot be used: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See :meth:`Broker.close`."""
        with self._lock:
            if self._visibility is not None:
                self._visibility.stop()
            self._leases.close()
            connection, self._connection, self._channel = self._connection, None, None
            self._declared.clear()
            if connection is not None:
                with suppress(Exception):  # nothing depends on it any more
                    connection.close()
