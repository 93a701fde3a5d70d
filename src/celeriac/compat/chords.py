"""The end of a chord: its members' results go to the callback, or their error to whoever waits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from kombu.utils.json import loads

from celeriac.compat.away import telling_away
from celeriac.compat.envelope import encode_json
from celeriac.errors import StoreUnavailable
from celeriac.outcome import ChordPart

logger = logging.getLogger("celery.backends")


def callback_of(chord: Any) -> bytes:
    """A chord's callback as bytes."""
    return encode_json(chord).encode()


def publish_callback(backend: Any, part: ChordPart, parts: Sequence[bytes], *, tries_again: bool = False) -> None:
    """Send a chord's callback with the results of its header, or fail it with the first error among them.

    ``tries_again``: whether the caller does when a store is away.

    Raises:
        StoreUnavailable: with ``tries_again``; nothing was sent.
    """
    app = backend.app
    callback = maybe_signature(loads(part.callback), app=app)
    passing = StoreUnavailable if tries_again else ()
    try:
        with telling_away(backend, f"the results of chord {part.group_id} cannot be read"):
            results = _results(backend, part.group_id, parts)
    except ChordError as error:
        logger.error("Chord %r raised: %r", part.group_id, error)
        backend.chord_error_from_stack(callback, error)
        return
    except passing:
        raise
    except Exception as error:
        logger.exception("Chord %r raised: %r", part.group_id, error)
        backend.chord_error_from_stack(callback, ChordError(f"Join error: {error!r}"))
        return
    try:
        callback.delay(results)
    except passing:
        raise
    except Exception as error:
        logger.exception("Chord callback for %r raised: %r", part.group_id, error)
        backend.chord_error_from_stack(callback, ChordError(f"Callback error: {error!r}"))


def _results(backend: Any, group_id: str, parts: Sequence[bytes]) -> list[Any]:
    """The header's results in order; a header with groups in it has its shape kept in the result store."""
    header = GroupResult.restore(group_id, backend=backend, app=backend.app)
    if header is None:
        return [_unpack(backend, payload) for payload in parts]
    header.on_ready()
    join = header.join_native if header.supports_native_join else header.join
    with allow_join_result():
        return list(join(timeout=backend.app.conf.result_chord_join_timeout, propagate=True))


def _unpack(backend: Any, payload: bytes) -> Any:
    _, task_id, state, value = backend.decode(payload)
    if state in states.EXCEPTION_STATES:
        value = backend.exception_to_python(value)
    if state in states.PROPAGATE_STATES:
        error = ChordError(f"Dependency {task_id} raised {value!r}")
        if isinstance(value, Exception):
            error.__cause__ = value
        raise error
    return value
