"""Outcomes as arguments of the function ``turn``, and its rows as a settlement and deliveries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from celeriac.message import Delivery, Message, lane_queue
from celeriac.outcome import DeadLetter, Outcome, ReadyChord, Settlement
from celeriac.postgres_store.arrays import Bigints, Booleans, Byteas, Floats, Integers, Smallints, Texts
from celeriac.postgres_store.copying import SMALLINT, binary_rows, row_start
from celeriac.postgres_store.results import CLAIM_TTL, last_of_each, position
from celeriac.postgres_store.store import Row

_SETTLED, _LEASED = 0, 2
"""Kinds of rows; 1 is the third."""

_NOTHING: dict[str, Any] = dict.fromkeys(
    (
        "result_tags", "result_ids", "result_states", "result_payloads", "result_guards",
        "part_tags", "part_groups", "part_tasks", "part_positions", "part_payloads",
        "next_tags", "next_queues", "next_priorities", "next_dues", "next_raws",
        "back_tags", "back_raws",
        "dead_tags", "dead_reasons", "dead_errors", "dead_tasks", "dead_task_ids", "dead_tracebacks",
        "dead_attempts", "dead_crashes", "dead_workers", "dead_ats",
        "done_tags", "done_groups",
        "key_tags", "key_spaces", "key_names", "key_holders", "key_contents", "key_ttls",
    )
)  # fmt: skip


class Batch(NamedTuple):
    """Outcomes that can be settled in one call: no delivery and no task is in it twice."""

    outcomes: list[Outcome]
    refused: int
    """Outcomes of deliveries that are in it already."""


def batches(outcomes: Sequence[Outcome], *, results: bool) -> list[Batch]:
    """Outcomes in their order, in as few batches as possible: one, nearly always."""
    if len({outcome.delivery.tag for outcome in outcomes}) == len(outcomes) and not (results and _repeats(outcomes)):
        return [Batch(list(outcomes), 0)]
    unique = list({outcome.delivery.tag: outcome for outcome in reversed(outcomes)}.values())[::-1]
    found = [Batch([], len(outcomes) - len(unique))]
    tasks: set[str] = set()
    for outcome in unique:
        mine = {result.task_id for result in outcome.results}
        if tasks & mine:
            found.append(Batch([], 0))
            tasks.clear()
        tasks |= mine
        found[-1].outcomes.append(outcome)
    return found


def _repeats(outcomes: Sequence[Outcome]) -> bool:
    """Whether two outcomes have a result of the same task."""
    named = [result.task_id for outcome in outcomes for result in outcome.results]
    if len(set(named)) == len(named):
        return False
    tasks: set[str] = set()
    for outcome in outcomes:
        for task_id in {result.task_id for result in outcome.results}:
            if task_id in tasks:
                return True
            tasks.add(task_id)
    return False


class TurnArguments:
    """Writes outcomes in the form that ``50_turn.sql`` describes."""

    def __init__(self, steps: Sequence[int], dead_limit: int, *, results: bool) -> None:
        self._steps = steps
        self._results = results
        self._fixed = {**_NOTHING, "claim_seconds": CLAIM_TTL, "dead_limit": dead_limit}

    def of(
        self, owner: str, outcomes: Sequence[Outcome], queues: Sequence[str], limit: int, *, condemned: bool
    ) -> dict[str, Any]:
        """All arguments of one call."""
        leases = limit > 0 and bool(queues)
        given = {
            **self._fixed,
            "owner": owner,
            "condemned": condemned,
            "tags": Bigints(outcome.delivery.tag for outcome in outcomes) if outcomes else None,
            "wanted": Texts(dict.fromkeys(queues)) if leases else None,
            "most": limit if leases else 0,
        }
        if self._results:
            given.update(_results(outcomes))
        if more := [outcome for outcome in outcomes if _says_more(outcome)]:
            if self._results:
                given.update(_parts(more))
            given.update(self._follow_ups(more))
            given.update(_back(more))
            given.update(_dead(more))
            given.update(_keys(more))
        return given

    def messages(self, messages: Sequence[Message]) -> tuple[Any, ...]:
        """Arguments of the function ``enqueue``."""
        later = any(message.due is not None for message in messages)
        return (
            Texts(lane_queue(message.queue, message.lane) for message in messages),
            Smallints(self.step(message.priority) for message in messages),
            Floats(message.due for message in messages) if later else None,
            Byteas(message.raw for message in messages),
        )

    def rows(self, messages: Sequence[Message]) -> list[bytes]:
        """The same for the statement ``publish_many``, which takes no dues."""
        starts: dict[tuple[str, str, int], bytes] = {}

        def start(message: Message) -> bytes:
            key = (message.queue, message.lane, message.priority)
            if (found := starts.get(key)) is None:
                queue = lane_queue(message.queue, message.lane).encode()
                found = starts[key] = row_start((queue, SMALLINT(self.step(message.priority))), of=3)
            return found

        return binary_rows((start(message), message.raw) for message in messages)

    def step(self, priority: int) -> int:
        """The step that a priority belongs to: the highest that is not above it."""
        return self._steps[max(0, bisect_right(self._steps, priority) - 1)]

    def _follow_ups(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        tags = [outcome.delivery.tag for outcome in outcomes for _ in outcome.publish]
        if not tags:
            return {}
        names = ("next_queues", "next_priorities", "next_dues", "next_raws")
        messages = [message for outcome in outcomes for message in outcome.publish]
        return {"next_tags": Bigints(tags), **dict(zip(names, self.messages(messages), strict=True))}


def _says_more(outcome: Outcome) -> bool:
    """Whether there is anything to write beside results."""
    return bool(
        outcome.publish
        or outcome.chord_parts
        or outcome.chords_done
        or outcome.keys
        or outcome.requeue is not None
        or outcome.dead is not None
    )


def _results(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        (outcome.delivery.tag, *result, outcome.guarded)
        for outcome in outcomes
        if outcome.results
        for result in last_of_each(outcome.results, guarded=outcome.guarded)
    ]
    return _columns(rows, _RESULT_COLUMNS)


def _parts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        (outcome.delivery.tag, part.group_id, part.task_id, position(part.index), part.payload)
        for outcome in outcomes
        for part in outcome.chord_parts
    ]
    done = [(outcome.delivery.tag, group_id) for outcome in outcomes for group_id in outcome.chords_done]
    return {**_columns(rows, _PART_COLUMNS), **_columns(done, _DONE_COLUMNS)}


def _back(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        (outcome.delivery.tag, None if outcome.requeue == outcome.delivery.raw else outcome.requeue)
        for outcome in outcomes
        if outcome.requeue is not None
    ]
    return _columns(rows, _BACK_COLUMNS)


def _keys(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [(outcome.delivery.tag, *write) for outcome in outcomes for write in outcome.keys]
    return _columns(rows, _KEY_COLUMNS)


def _dead(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        (outcome.delivery.tag, *_letter(outcome.dead))
        for outcome in outcomes
        if outcome.dead is not None and outcome.requeue is None
    ]
    return _columns(rows, _DEAD_COLUMNS)


def _letter(dead: DeadLetter) -> tuple[Any, ...]:
    reason = str(getattr(dead.reason, "value", dead.reason))
    texts = map(storable, (reason, dead.error, dead.task, dead.task_id, dead.traceback))
    return (*texts, dead.attempts, dead.crashes, storable(dead.worker), dead.at or None)


def storable(text: str) -> str:
    """Text as PostgreSQL can keep it: without NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


_RESULT_COLUMNS = (
    ("result_tags", Bigints),
    ("result_ids", Texts),
    ("result_states", Texts),
    ("result_payloads", Byteas),
    ("result_guards", Booleans),
)
_PART_COLUMNS = (
    ("part_tags", Bigints),
    ("part_groups", Texts),
    ("part_tasks", Texts),
    ("part_positions", Integers),
    ("part_payloads", Byteas),
)
_DONE_COLUMNS = (("done_tags", Bigints), ("done_groups", Texts))
_KEY_COLUMNS = (
    ("key_tags", Bigints),
    ("key_spaces", Texts),
    ("key_names", Texts),
    ("key_holders", Texts),
    ("key_contents", Byteas),
    ("key_ttls", Floats),
)
_BACK_COLUMNS = (("back_tags", Bigints), ("back_raws", Byteas))
_DEAD_COLUMNS = (
    ("dead_tags", Bigints),
    ("dead_reasons", Texts),
    ("dead_errors", Texts),
    ("dead_tasks", Texts),
    ("dead_task_ids", Texts),
    ("dead_tracebacks", Texts),
    ("dead_attempts", Integers),
    ("dead_crashes", Integers),
    ("dead_workers", Texts),
    ("dead_ats", Floats),
)


def _columns(rows: list[tuple[Any, ...]], columns: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {}
    return {name: array(values) for (name, array), values in zip(columns, zip(*rows, strict=True), strict=True)}


def read(batch: Batch, rows: Iterable[Row]) -> tuple[Settlement, list[Delivery]]:
    """What the function returned."""
    fenced, ready, leased = batch.refused, [], []
    for kind, tag, queue, raw in rows:
        if kind == _LEASED:
            leased.append(Delivery(tag, queue, raw))
        elif kind == _SETTLED:
            fenced += tag
        else:
            ready.append(tag)
    if not ready:
        return Settlement(fenced), leased
    parts = [ReadyChord(outcome, part) for outcome in batch.outcomes for part in outcome.chord_parts]
    return Settlement(fenced, tuple(parts[place - 1] for place in ready)), leased
