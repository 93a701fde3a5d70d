"""Writes outcomes: each whole or not at all, fenced by its lease."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from operator import attrgetter

from celeriac.brokers.sqlite import burying, publishing
from celeriac.message import Message
from celeriac.outcome import Outcome, ReadyChord, Settlement
from celeriac.sqlite_store import chords, keyvalues
from celeriac.sqlite_store.results import put_results
from celeriac.sqlite_store.statements import statements

_SQL = statements(__package__ or "", "settle.sql")


def settle(
    connection: sqlite3.Connection, owner: int, outcomes: Sequence[Outcome], steps: Sequence[int], now: float
) -> Settlement:
    """Write a batch of outcomes for an owner's id."""
    held = _held(connection, owner, [outcome.delivery.tag for outcome in outcomes])
    # Popped, so that of two outcomes for one delivery the second is refused.
    valid = [(message, outcome) for outcome in outcomes if (message := held.pop(outcome.delivery.tag, None))]
    _store_results(connection, (outcome for _, outcome in valid), now)
    ready = [chord for _, outcome in valid if outcome.chord_parts for chord in _count(connection, outcome, now)]
    unfinished = {chord.outcome.delivery.tag for chord in ready}
    _finish(connection, owner, [pair for pair in valid if pair[1].delivery.tag not in unfinished], steps, now)
    return Settlement(len(outcomes) - len(valid), tuple(ready))


def release(connection: sqlite3.Connection, owner: int, tags: Sequence[int]) -> int:
    """Put deliveries back where they were; return how many were held."""
    held = _held(connection, owner, tags)
    messages = {tag: held[tag] for tag in tags if tag in held}
    _drop_leases(connection, owner, messages)
    connection.executemany(_SQL["back_to_ready"], [(message,) for message in messages.values()])
    return len(messages)


def publishes(outcomes: Iterable[Outcome]) -> bool:
    """Whether settling these may make messages ready."""
    return any(outcome.publish or outcome.requeue is not None for outcome in outcomes)


def _held(connection: sqlite3.Connection, owner: int, tags: Sequence[int]) -> dict[int, int]:
    """Message ids by tag, of those tags (and of some between them) that the owner holds."""
    if not tags:
        return {}
    return dict(connection.execute(_SQL["held"], (owner, min(tags), max(tags))))


def _store_results(connection: sqlite3.Connection, outcomes: Iterable[Outcome], now: float) -> None:
    # Runs of equal guard, to keep their order: two outcomes of a batch may be of one task.
    for guarded, run in groupby((o for o in outcomes if o.results), key=attrgetter("guarded")):
        put_results(connection, chain.from_iterable(o.results for o in run), now, guarded=guarded)


def _count(connection: sqlite3.Connection, outcome: Outcome, now: float) -> list[ReadyChord]:
    return [ReadyChord(outcome, part) for part in outcome.chord_parts if chords.count_part(connection, part, now)]


def _finish(
    connection: sqlite3.Connection,
    owner: int,
    pairs: Sequence[tuple[int, Outcome]],
    steps: Sequence[int],
    now: float,
) -> None:
    """Everything that ends a lease: requeue, dead letter, acknowledgement, and what follows."""
    _drop_leases(connection, owner, [outcome.delivery.tag for _, outcome in pairs])
    for message, outcome in pairs:
        if outcome.requeue is not None:
            _requeue(connection, message, outcome.requeue)
        elif outcome.dead is not None:
            burying.bury(connection, message, outcome.dead, now)
        chords.finish_chords(connection, outcome.chords_done, now)
        keyvalues.apply(connection, outcome.keys, now)
    connection.executemany(_SQL["drop_message"], [(message,) for message, outcome in pairs if outcome.requeue is None])
    follow_ups: list[Message] = [message for _, outcome in pairs for message in outcome.publish]
    if follow_ups:
        publishing.publish(connection, follow_ups, steps, now)


def _requeue(connection: sqlite3.Connection, message: int, raw: bytes) -> None:
    connection.execute(_SQL["rewrite_message"], (raw, message))
    connection.execute(_SQL["back_to_ready"], (message,))


def _drop_leases(connection: sqlite3.Connection, owner: int, tags: Iterable[int]) -> None:
    connection.executemany(_SQL["drop_lease"], [(owner, tag) for tag in tags])
