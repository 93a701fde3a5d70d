"""Sending: messages, what follows an outcome, and dead letters; confirmed before it returns."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.confirms import Published
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.dead import DeadLetters, letter_entry
from celeriac.brokers.rabbitmq.delays import Delays, delay_route, ticks_until
from celeriac.brokers.rabbitmq.methods import declare_queue, purge_queue
from celeriac.brokers.rabbitmq.topology import Topology
from celeriac.brokers.rabbitmq.wire import Entry
from celeriac.errors import QueueFull, StoreError, StoreFull, Unroutable
from celeriac.message import Message
from celeriac.outcome import Outcome

INSIST_PAUSE, LONGEST_INSIST_PAUSE = 0.02, 0.5
"""Seconds before what a queue refused is sent again.  A quorum queue elects its leader within a second, as a rule."""


class Publisher:
    """Publishes on one connection."""

    def __init__(self, connection: Connection, topology: Topology, delays: Delays, dead: DeadLetters) -> None:
        self._connection = connection
        self._topology = topology
        self._delays = delays
        self._dead = dead
        self._full: set[str] = set()
        """Queues that were seen to have a bound that the app does not know of."""
        self._followed: dict[tuple[str, int], set[int]] = {}
        """For outcomes whose settling was cut short: which of their messages were confirmed."""

    # -- messages --------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages.

        Raises:
            QueueFull: a queue refused one; of the others some or all were sent.
            Unroutable: no queue would have got one.
            StoreUnavailable: what was not confirmed may have been sent or not.
        """
        with self._connection.lock:
            entries = [self._entry(message) for message in messages]
            published = self._connection.publish(entries)
        refused, unroutable = published
        if refused and not any(self._is_bounded(messages[at]) for at in refused):
            refused, unroutable = self._insist(messages, entries, published)
        if refused:
            first = messages[refused[0]].queue or f"behind {entries[refused[0]].exchange.decode()}"
            raise QueueFull(first, count=len(messages), refused=refused)
        if unroutable:
            raise self._unroutable(unroutable)

    def _unroutable(self, addresses: Collection[tuple[str, str]]) -> StoreError:
        """Why no queue would have got a message."""
        exchange, key = min(addresses)
        self._topology.forget()  # it may have been deleted: the next one makes it again
        if not exchange:
            try:
                self._connection.call(declare_queue(key, passive=True))
            except ChannelClosed as error:
                if "home node" in error.text:  # of a classic queue; what is away is not a target
                    return error
        return Unroutable(
            f"no queue is bound to exchange {exchange!r} for routing key {key!r}; nothing gets the message"
        )

    def _is_bounded(self, message: Message) -> bool:
        """Whether a queue that refused a message may be full, as far as is known."""
        if not message.queue or message.due is not None:
            return False
        return message.queue in self._full or "reject-publish" in str(
            self._topology.spec(message.queue).arguments.get("x-overflow")
        )

    def _insist(self, messages: Sequence[Message], entries: Sequence[Entry], published: Published) -> Published:
        """Send again what was refused for no reason that we know of: the queue elects a leader, or a policy of the server bounds it.

        Raises:
            StoreUnavailable: a queue is away.
        """
        refused, unroutable = published
        pause, deadline = INSIST_PAUSE, time.monotonic() + self._connection.options.answer_timeout
        while refused and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_INSIST_PAUSE)
            self._connection.renew()
            again = self._connection.publish([entries[at] for at in refused])
            refused, unroutable = tuple(refused[at] for at in again.refused), unroutable | again.unroutable
        for queue in sorted({messages[at].queue for at in refused if messages[at].due is None} - {""}):
            (answer,) = self._connection.call(declare_queue(queue, passive=True))  # an error, if the queue is away
            if answer.message_count:
                self._full.add(queue)
        return Published(refused, unroutable)

    def _entry(self, message: Message) -> Entry:
        queue, raw = message.queue, message.raw
        properties, body = wire.content(raw, message.priority)
        if not queue:  # an exchange decides
            parcel = wire.unpack(raw)
            if parcel.exchange.startswith("celery_delayed_"):  # Celery's own way to delay
                properties = wire.without_deaths(properties)
            return Entry(parcel.exchange.encode(), parcel.routing_key.encode(), properties, body)
        self._topology.need(queue)
        ticks = 0 if message.due is None else ticks_until(message.due)
        if not ticks:
            return Entry(b"", queue.encode(), properties, body)
        self._delays.need(queue)
        exchange, key = delay_route(queue, ticks)
        return Entry(exchange.encode(), key.encode(), wire.without_deaths(properties), body)

    def purge(self, queue: str) -> int:
        """Throw away what is ready."""
        self._topology.need(queue)
        (answer,) = self._connection.call(purge_queue(queue))
        count: int = answer.message_count
        return count

    # -- what follows an outcome -----------------------------------------------------------------------------------

    def follow_up(self, owner: str, outcomes: Iterable[Outcome]) -> None:
        """Publish what outcomes say, once each even if it takes several calls.

        Raises:
            StoreFull: a queue refused one; the outcome is not to be settled yet.
            StoreUnavailable: what was not confirmed may have been sent or not, and is sent again.
        """
        wanted = [
            (outcome, number, message)
            for outcome in outcomes
            if outcome.publish or outcome.dead is not None or outcome.requeue is not None
            for number, message in enumerate(_messages(outcome))
            if number not in self._followed.get((owner, outcome.delivery.tag), ())
        ]
        if not wanted:
            return
        with self._connection.lock:
            entries = [self._following(outcome, what) for outcome, _, what in wanted]
            published = self._connection.publish(entries)
        refused = set(published.refused)
        for index, (outcome, number, _) in enumerate(wanted):
            address = entries[index].exchange.decode(), entries[index].key.decode()
            if index not in refused and address not in published.unroutable:
                self._followed.setdefault((owner, outcome.delivery.tag), set()).add(number)
        if refused:
            self._connection.renew()
            raise StoreFull(
                "a queue does not take what follows a task: it has reached its maximum length, or it is away for now"
            )
        if published.unroutable:
            raise self._unroutable(published.unroutable)

    def _following(self, outcome: Outcome, what: Message | None) -> Entry:
        if what is not None:
            return self._entry(what)
        assert outcome.dead is not None
        self._dead.need()
        return letter_entry(outcome.delivery, outcome.dead)

    def forget(self, owner: str, tags: Iterable[int]) -> None:
        """These outcomes are settled."""
        for tag in tags:
            self._followed.pop((owner, tag), None)


def goes_back_unchanged(outcome: Outcome) -> bool:
    """Whether the server can put the message back itself, in its old place."""
    return outcome.requeue is not None and wire.same_message(outcome.requeue, outcome.delivery.raw)


def _messages(outcome: Outcome) -> list[Message | None]:
    """What an outcome publishes; ``None`` stands for its dead letter."""
    delivery = outcome.delivery
    found: list[Message | None] = [
        message._replace(raw=wire.as_copy(message.raw)) if wire.same_message(message.raw, delivery.raw) else message
        for message in outcome.publish
    ]
    if outcome.requeue is not None and not goes_back_unchanged(outcome):
        found.append(Message(delivery.queue, outcome.requeue))
    if outcome.dead is not None:
        found.append(None)
    return found
