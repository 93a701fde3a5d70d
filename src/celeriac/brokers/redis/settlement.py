"""Outcomes as arguments of ``settle.lua``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from celeriac.brokers.redis.result_keys import ResultKeys
from celeriac.outcome import ChordPart, DeadLetter, KeyWrite, Outcome, Result


class SettleArguments:
    """Writes outcomes in the form that ``settle.lua`` describes."""

    def __init__(
        self,
        list_key: Callable[[str, int, str], str],
        key: Callable[..., str],
        dead_limit: int,
        database: int,
        results: ResultKeys | None,
    ) -> None:
        self._list_key = list_key
        self._key = key
        self._results = results
        apart = results is not None and results.database != database
        databases = (str(database), str(results.database)) if results is not None and apart else ("", "")
        self._head = (*databases, dead_limit)

    @staticmethod
    def is_plain(outcome: Outcome) -> bool:
        """Whether the message is only to be acknowledged."""
        return outcome[2:7] == ((), (), (), None, None) and not (outcome.chords_done or outcome.keys)

    def of(self, owner: str, outcomes: Sequence[Outcome], *, condemned: bool) -> list[Any]:
        """All arguments of one call."""
        plain = [outcome.delivery.tag for outcome in outcomes if self.is_plain(outcome)]
        arguments: list[Any] = [
            owner,
            int(condemned),
            *self._head,
            len(plain),
            *plain,
        ]
        if len(plain) < len(outcomes):
            for outcome in outcomes:
                if not self.is_plain(outcome):
                    self._add(arguments, outcome)
        return arguments

    def _add(self, arguments: list[Any], outcome: Outcome) -> None:
        operations = list(self._operations(outcome))
        arguments += [outcome.delivery.tag, len(operations)]
        for operation in operations:
            arguments += operation

    def _operations(self, outcome: Outcome) -> Iterator[list[Any]]:
        if self._results is not None:
            yield from self._result_operations(outcome, self._results)
        for message in outcome.publish:
            key = self._list_key(message.queue, message.priority, message.lane)
            if message.lane:
                counts = self._key("lanes", message.queue), self._key("parked", message.queue)
                yield ["L", key, *counts, message.lane, message.raw]
            elif message.due is None:
                yield ["P", key, message.raw]
            else:
                yield ["S", self._key("schedule", message.queue), int(message.due * 1000), key, message.raw]
        for write in outcome.keys:
            yield ["K", *key_arguments(self._key, write)]
        if outcome.requeue is not None:
            yield ["Q", _unless_same(outcome, outcome.requeue)]
        if outcome.dead is not None:
            yield ["D", outcome.delivery.queue, b"", *_fields(outcome.dead)]

    @staticmethod
    def _result_operations(outcome: Outcome, results: ResultKeys) -> Iterator[list[Any]]:
        for result in outcome.results:
            yield result_operation(results, result, guarded=outcome.guarded)
        for part in outcome.chord_parts:
            yield part_operation(results, part)
        for group_id in outcome.chords_done:
            yield ["F", results.group_key(group_id), results.done_ttl]


def key_arguments(key: Callable[..., str], write: KeyWrite) -> list[Any]:
    """A write of a held key, as ``apply_key`` in ``keys.lua`` reads it.  ``key`` makes keys of our own."""
    name = key("kv", write.space, write.name)
    return [name, write.holder, int(write.value is not None), write.value or b"", milliseconds(write.ttl)]


def milliseconds(ttl: float | None) -> int:
    """A time to live for Redis; 0 means for ever."""
    return 0 if ttl is None else max(1, round(ttl * 1000))


def result_operation(results: ResultKeys, result: Result, *, guarded: bool) -> list[Any]:
    """Write one result."""
    return ["R", results.task_key(result.task_id), result.payload, results.ttl_of(result), int(guarded)]


def part_operation(results: ResultKeys, part: ChordPart) -> list[Any]:
    """Count one part of a chord."""
    score = "+inf" if part.index is None else part.index
    return [
        "C",
        results.group_key(part.group_id),
        part.task_id,
        part.payload,
        int(results.chord_ordered),
        score,
        results.chord_ttl,
        results.group_ttl,
        results.claim_ttl,
        f"celeriac:{part.task_id}",
    ]


def _unless_same(outcome: Outcome, raw: bytes) -> bytes:
    return b"" if raw is outcome.delivery.raw or raw == outcome.delivery.raw else raw


def _fields(dead: DeadLetter) -> list[Any]:
    pairs: list[Any] = []
    for name, value in zip(dead._fields, dead, strict=True):
        pairs += [name, value]
    return [len(dead), *pairs]
