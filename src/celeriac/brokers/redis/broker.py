"""The contract of :mod:`celeriac.broker`, on Redis."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from celeriac.backend import Backend
from celeriac.broker import NO_BOUNDS, Broker, DeadMessage, Depth, Lane
from celeriac.brokers.redis.arrivals import Arrivals
from celeriac.brokers.redis.connection import RedisConnection
from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.result_keys import ResultKeys
from celeriac.brokers.redis.settlement import SettleArguments, milliseconds
from celeriac.errors import QueueFull
from celeriac.keyvalue import Claim, KeyValueStore
from celeriac.message import Bound, Delivery, Message, sent_at
from celeriac.outcome import Outcome, ReadyChord, Settlement

RESCUE_CUT_SHORT_AFTER = 10.0
"""Seconds after which the messages of a condemned owner are anybody's to rescue.  Until then they are left to whoever
condemned it, who may know which of them had started."""

SCRIPTS = (
    "lease",
    "settle",
    "release",
    "publish",
    "publish_within",
    "publish_claimed",
    "beat",
    "unregister",
    "condemn",
    "expired",
    "promote",
    "depth",
    "replay",
    "expire_dead",
    "leased_count",
    "lanes",
    "unpark",
    "purge",
)


class RedisBroker(Broker):
    """Queues, schedule, leases and dead letters in Redis."""

    has_lanes = True
    writes_keys = True

    def __init__(self, options: RedisOptions, results: ResultKeys | None = None) -> None:
        """Connects at first use.

        Args:
            options: where the server is.
            results: the keys of the result store.  When it is on the same server its results are written in the
                same settle.
        """
        self.options = options
        self.url = options.safe_url()
        self._redis = RedisConnection(options, SCRIPTS)
        self._arrivals = Arrivals(options)
        self._prefix = options.key_prefix
        self._served: dict[str, tuple[str, ...]] = {}
        self._steps = list(options.priority_steps)
        self._suffixes = [f"{options.separator}{step}" if step else "" for step in self._steps]
        self._lists: dict[str, list[str]] = {}
        self._queue_of_list: dict[str, str] = {}
        self._results = results if results is not None and results.address == self._redis.address else None
        self._settle_arguments = SettleArguments(
            self.list_key, self.key, options.dead_limit, self._redis.database, self._results
        )

    @classmethod
    def from_url(cls, url: str, results: ResultKeys | None = None, **options: Any) -> RedisBroker:
        """A broker at a URL, with options of :class:`RedisOptions`."""
        return cls(RedisOptions(url, **options), results)

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self._redis.round_trips

    # -- keys ------------------------------------------------------------------------------------------------------

    def list_key(self, queue: str, priority: int, lane: str = "") -> str:
        """The list that messages of this priority wait in, in their queue or in a lane beside it."""
        lists = self._lane_lists(queue, lane) if lane else self.lists(queue)
        return lists[max(0, bisect_right(self._steps, priority) - 1)]

    def lists(self, queue: str) -> list[str]:
        """A queue's lists, in the order in which they are emptied."""
        found = self._lists.get(queue)
        if found is None:
            found = self._lists[queue] = [f"{self._prefix}{queue}{suffix}" for suffix in self._suffixes]
        return found

    def _lane_lists(self, queue: str, lane: str) -> list[str]:
        return [f"{self._lanes_prefix(queue)}{lane}{suffix}" for suffix in self._suffixes]

    def _lanes_prefix(self, queue: str) -> str:
        return self.key("lane", f"{queue}\x1f")

    def key(self, *parts: str) -> str:
        """A key of our own."""
        return f"{self._prefix}celeriac:" + ":".join(parts)

    def lease_key(self, owner: str) -> str:
        """The hash that holds an owner's leases."""
        return self.key("lease", owner)

    # -- sending ---------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`Broker.publish`."""
        if any(message.due is not None for message in messages):
            self._redis.run("publish", [self.key("serial")], list(self._publish_arguments(messages)))
            return
        by_list: dict[str, list[bytes]] = {}
        for message in messages:
            by_list.setdefault(self.list_key(message.queue, message.priority), []).append(message.raw)
        if len(by_list) == 1:
            ((key, raws),) = by_list.items()
            self._redis.execute("LPUSH", key, *raws)
        elif by_list:
            with self._redis.call() as client:
                pipe = client.pipeline(transaction=True)
                for key, raws in by_list.items():
                    pipe.lpush(key, *raws)
                pipe.execute()

    def _publish_arguments(self, messages: Sequence[Message]) -> Iterator[Any]:
        for message in messages:
            yield self.list_key(message.queue, message.priority)
            yield message.raw
            yield self.key("schedule", message.queue)
            yield self.key("consumers", message.queue)
            yield int((message.due or 0) * 1000)

    def publish_within(self, messages: Sequence[Message], bounds: Mapping[str, Bound]) -> None:
        """See :meth:`Broker.publish_within`: one script."""
        counts = Counter(message.queue for message in messages if message.queue in bounds)
        keys = [self.key("serial"), self.key("dead")]
        arguments: list[Any] = [self.options.dead_limit, time.time(), len(counts)]
        for queue, count in counts.items():
            lists = self.lists(queue)
            keys += [self.key("schedule", queue), self.key("parked", queue), *lists]
            arguments += [queue, bounds[queue].max_length, int(bounds[queue].drop_oldest), count, len(lists)]
        refusal = self._redis.run("publish_within", keys, [*arguments, *self._publish_arguments(messages)])
        if refusal:
            place, length = refusal
            queue, count = list(counts.items())[place - 1]
            raise QueueFull(queue, bounds[queue].max_length, length, count)

    def publish_claimed(
        self,
        messages: Sequence[Message],
        claims: Sequence[Claim | None],
        store: KeyValueStore,
        bounds: Mapping[str, Bound] = NO_BOUNDS,
    ) -> list[bytes | None]:
        """See :meth:`Broker.publish_claimed`."""
        if bounds or not self.shares_keys(store):
            return super().publish_claimed(messages, claims, store, bounds)
        arguments: list[Any] = []
        for message, claim in zip(messages, claims, strict=True):
            arguments += self._publish_arguments([message])
            arguments += self._claim_arguments(claim) if claim else ("", "", "", 0, 0)
        keys = [self.key("serial"), self.key("kv-version")]
        found: list[bytes | None] = self._redis.run("publish_claimed", keys, arguments)
        return found

    def _claim_arguments(self, claim: Claim) -> Iterator[Any]:
        yield self.key("kv", claim.space, claim.name)
        yield claim.holder
        yield claim.data
        yield milliseconds(claim.ttl)
        yield int(claim.replace)

    # -- lease, settle, release ------------------------------------------------------------------------------------

    def turn(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int
    ) -> tuple[Settlement, list[Delivery]]:
        """See :meth:`Broker.turn`: two scripts in one pipeline."""
        calls: list[tuple[str, Sequence[Any], Sequence[Any]]] = []
        if outcomes:
            calls.append(self._settle_call(owner, outcomes, condemned=False))
        if limit > 0 and queues:
            keys = self._keys_by_priority(queues)
            calls.append(("lease", [self.key("owners"), self.lease_key(owner), *keys], [owner, limit]))
        if not calls:
            return Settlement(), []
        replies = self._redis.run_all(calls)
        settlement = self._settlement(outcomes, replies[0]) if outcomes else Settlement()
        leased = self._deliveries(keys, replies[-1]) if limit > 0 and queues else []
        return settlement, leased

    def _keys_by_priority(self, queues: Sequence[str]) -> list[str]:
        lists = [self.lists(queue) for queue in queues]
        return list(chain.from_iterable(zip(*lists, strict=True)))

    def _deliveries(self, keys: Sequence[str], reply: list[Any]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for place, first, messages in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
            queue = self._queue_of(keys[place - 1])
            deliveries.extend(Delivery(first + i, queue, raw) for i, raw in enumerate(messages))
        return deliveries

    def _queue_of(self, key: str) -> str:
        queue = self._queue_of_list.get(key)
        if queue is None:
            queue = key[len(self._prefix) :]
            head, separator, step = queue.rpartition(self.options.separator)
            if separator and step.isdigit() and int(step) in self._steps:
                queue = head
            self._queue_of_list[key] = queue
        return queue

    def _settle_call(
        self, owner: str, outcomes: Sequence[Outcome], *, condemned: bool
    ) -> tuple[str, Sequence[Any], Sequence[Any]]:
        own = (self.key(name) for name in ("dead", "serial", "kv-version"))
        keys = [self.key("owners"), self.lease_key(owner), *own]
        return "settle", keys, self._settle_arguments.of(owner, outcomes, condemned=condemned)

    @staticmethod
    def _settlement(outcomes: Sequence[Outcome], reply: list[int]) -> Settlement:
        if len(reply) == 1:
            return Settlement(reply[0])
        composed = [outcome for outcome in outcomes if not SettleArguments.is_plain(outcome)]
        ready = []
        for place, part in zip(reply[1::2], reply[2::2], strict=True):
            outcome = composed[place - 1]
            ready.append(ReadyChord(outcome, outcome.chord_parts[part - 1]))
        return Settlement(reply[0], tuple(ready))

    def release(self, owner: str, tags: Sequence[int]) -> int:
        """See :meth:`Broker.release`."""
        if not tags:
            return 0
        keys = [self.key("owners"), self.lease_key(owner)]
        return int(self._redis.run("release", keys, [owner, *sorted(tags, reverse=True)]))

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See :meth:`Broker.wait`: every list is watched by a blocking ``BLMOVE`` of its last message onto its own place."""
        self._redis.round_trips += 1
        return self._arrivals.wait(self._keys_by_priority(queues), timeout)

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str], limit: int = 100) -> list[Lane]:
        """See :meth:`Broker.lanes`."""
        reply = self._redis.run("lanes", [self.key("lanes", queue) for queue in queues], [limit]) if queues else []
        return [
            Lane(queue, name.decode(), int(count))
            for queue, found in zip(queues, reply, strict=True)
            for name, count in zip(found[::2], found[1::2], strict=True)
        ]

    def unpark(self, owner: str, wanted: Sequence[Lane]) -> list[list[Delivery]]:
        """See :meth:`Broker.unpark`: one script."""
        keys = [self.key("owners"), self.lease_key(owner)]
        arguments: list[Any] = [owner, len(self._steps)]
        for lane in wanted:
            keys += [self.key("lanes", lane.queue), self.key("parked", lane.queue)]
            keys += [*self._lane_lists(lane.queue, lane.name), *self.lists(lane.queue)]
            arguments += [lane.name, lane.count]
        reply = self._redis.run("unpark", keys, arguments)
        return [
            [Delivery(first + i, lane.queue, raw) for i, raw in enumerate(messages)]
            for lane, first, messages in zip(wanted, reply[::2], reply[1::2], strict=True)
        ]

    def alive(self, owners: Sequence[str]) -> set[str]:
        """See :meth:`Broker.alive`."""
        if not owners:
            return set()
        with self._redis.call() as client:
            deadlines: Any = client.zmscore(self.key("owners"), list(owners))
        return {owner for owner, at in zip(owners, deadlines, strict=True) if at is not None and at >= 0}

    # -- owners ----------------------------------------------------------------------------------------------------

    def register(self, owner: str, queues: Sequence[str], ttl: float) -> None:
        """See :meth:`Broker.register`."""
        self._served[owner] = tuple(queues)
        self._beat([owner], queues, ttl, make_known=True)

    def beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float) -> list[str]:
        """See :meth:`Broker.beat`."""
        return self._beat(owners, queues, ttl, make_known=False) if owners else []

    def _beat(self, owners: Sequence[str], queues: Sequence[str], ttl: float, *, make_known: bool) -> list[str]:
        keys = [self.key("owners"), *(self.key("consumers", queue) for queue in queues)]
        lost = self._redis.run("beat", keys, [int(ttl * 1000), int(make_known), *owners])
        return [owner.decode() for owner in lost]

    def unregister(self, owner: str) -> bool:
        """See :meth:`Broker.unregister`."""
        consumers = [self.key("consumers", queue) for queue in self._served.get(owner, ())]
        gone = bool(self._redis.run("unregister", [self.key("owners"), self.lease_key(owner), *consumers], [owner]))
        if gone:
            self._served.pop(owner, None)
        return gone

    # -- rescue ----------------------------------------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """See :meth:`Broker.expired`."""
        found = self._redis.run("expired", [self.key("owners")], [limit, int(RESCUE_CUT_SHORT_AFTER * 1000)])
        return [owner.decode() for owner in found]

    def condemn(self, owner: str) -> None:
        """See :meth:`Broker.condemn`."""
        self._redis.run("condemn", [self.key("owners")], [owner])

    def leased(self, owner: str, limit: int = 1000) -> list[Delivery]:
        """See :meth:`Broker.leased`."""
        key = self.lease_key(owner)
        with self._redis.call() as client:
            names: Any = client.hkeys(key)
        tags = sorted(int(name) for name in names if name != b"n")[:limit]
        if not tags:
            return []
        with self._redis.call() as client:
            held: Any = client.hmget(key, [str(tag) for tag in tags])
        return [self._delivery(tag, value) for tag, value in zip(tags, held, strict=True) if value is not None]

    def _delivery(self, tag: int, held: bytes) -> Delivery:
        length, _, rest = held.partition(b":")
        return Delivery(tag, self._queue_of(rest[: int(length)].decode()), rest[int(length) :])

    def settle_condemned(self, owner: str, outcomes: Sequence[Outcome]) -> Settlement:
        """See :meth:`Broker.settle_condemned`."""
        if not outcomes:
            return Settlement()
        name, keys, args = self._settle_call(owner, outcomes, condemned=True)
        return self._settlement(outcomes, self._redis.run(name, keys, args))

    # -- schedule --------------------------------------------------------------------------------------------------

    def promote(self, queues: Sequence[str], limit: int = 1000) -> tuple[int, float | None]:
        """See :meth:`Broker.promote`."""
        moved, wait = self._redis.run("promote", [self.key("schedule", queue) for queue in queues], [limit])
        return moved, None if wait < 0 else wait / 1000

    def first_scheduled(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """See :meth:`Broker.first_scheduled`."""
        with self._redis.call() as client:
            found: Any = client.zrange(self.key("schedule", queue), 0, limit - 1, withscores=True)
        return [(score / 1000, _scheduled_envelope(member)) for member, score in found]

    # -- looking ---------------------------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str]) -> list[Depth]:
        """See :meth:`Broker.depth`."""
        if not queues:
            return []
        calls: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
            (
                "depth",
                [*(self.key(name, queue) for name in ("schedule", "consumers", "parked")), *self.lists(queue)],
                [],
            )
            for queue in queues
        ]
        now = time.time()
        return [_depth(queue, reply, now) for queue, reply in zip(queues, self._redis.run_all(calls), strict=True)]

    def leased_count(self) -> int:
        """See :meth:`Broker.leased_count`."""
        return int(self._redis.run("leased_count", [self.key("owners")], [self.lease_key("")]))

    def purge(self, queue: str) -> int:
        """See :meth:`Broker.purge`: one script."""
        keys = [*(self.key(name, queue) for name in ("schedule", "lanes", "parked")), *self.lists(queue)]
        return int(self._redis.run("purge", keys, [self._lanes_prefix(queue), *self._suffixes]))

    # -- dead letters ----------------------------------------------------------------------------------------------

    def dead_count(self) -> int:
        """See :meth:`Broker.dead_count`."""
        with self._redis.call() as client:
            return int(client.xlen(self.key("dead")))

    def dead_letters(self, limit: int = 100, before: str | None = None) -> list[DeadMessage]:
        """See :meth:`Broker.dead_letters`."""
        newest = f"({before}" if before else "+"
        with self._redis.call() as client:
            entries: Any = client.xrevrange(self.key("dead"), newest, "-", limit)
        return [_dead_message(id, fields) for id, fields in entries]

    def dead_letter(self, id: str) -> DeadMessage | None:
        """See :meth:`Broker.dead_letter`."""
        with self._redis.call() as client:
            entries: Any = client.xrange(self.key("dead"), id, id)
        return _dead_message(*entries[0]) if entries else None

    def replay(self, id: str, message: Message | None = None) -> bool:
        """See :meth:`Broker.replay`."""
        key = self.list_key(message.queue, message.priority) if message else ""
        raw = message.raw if message else b""
        return bool(self._redis.run("replay", [self.key("dead")], [id, key, raw]))

    def discard(self, ids: Iterable[str]) -> int:
        """See :meth:`Broker.discard`."""
        wanted = list(ids)
        if not wanted:
            return 0
        with self._redis.call() as client:
            return int(client.xdel(self.key("dead"), *wanted))

    def expire_dead(self, before: float, limit: int = 100) -> int:
        """See :meth:`Broker.expire_dead`."""
        return int(self._redis.run("expire_dead", [self.key("dead")], [before, limit]))

    # -- the rest --------------------------------------------------------------------------------------------------

    def shares_store(self, backend: Backend | None) -> bool:
        """See :meth:`Broker.shares_store`: the same server, in the same database or another."""
        return self._results is not None and getattr(backend, "keys", None) == self._results

    def shares_keys(self, store: KeyValueStore) -> bool:
        """See :meth:`Broker.shares_keys`: the same database under the same prefix."""
        mine = (self._redis.address, self._redis.database, self._prefix)
        return getattr(store, "place", None) == mine

    def ping(self) -> None:
        """See :meth:`Broker.ping`."""
        with self._redis.call() as client:
            client.ping()

    def close(self) -> None:
        """See :meth:`Broker.close`."""
        self._arrivals.close()
        self._redis.close()


def _depth(queue: str, reply: list[Any], now: float) -> Depth:
    ready, scheduled, consumers, parked, first = reply
    sent = sent_at(first) if first else None
    return Depth(queue, ready, scheduled, consumers, None if sent is None else max(0.0, now - sent), parked)


def _dead_message(id: bytes, fields: dict[bytes, bytes]) -> DeadMessage:
    text = {key.decode(): value for key, value in fields.items() if key not in (b"raw", b"key")}
    values = {key: value.decode("utf-8", "replace") for key, value in text.items()}
    return DeadMessage(
        id=id.decode(),
        queue=values["queue"],
        raw=fields[b"raw"],
        reason=values["reason"],
        error=values["error"],
        task=values["task"],
        task_id=values["task_id"],
        traceback=values["traceback"],
        attempts=int(values["attempts"]),
        crashes=int(values["crashes"]),
        worker=values["worker"],
        at=float(values["at"]),
    )


def _scheduled_envelope(member: bytes) -> bytes:
    """A member of the schedule is a serial number, the length of the list's key, that key, and the envelope (see ``publish.lua``)."""
    _, length, rest = member.split(b":", 2)
    return rest[int(length) :]
