"""Queues of Celeriac's own: of which type they are declared.

A classic queue lives on one node of a cluster and is away with it; a quorum queue lives on several.  What was declared before with
another type, by an earlier version or another app, is used as it is, and a line of the log tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from pamqp.base import Frame

from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.options import CLASSIC, QUORUM

logger = logging.getLogger("celeriac.engine")

TYPED_SINCE = (4, 0)
"""From this version on a virtual host's default type may be another than classic, and a quorum queue drops what was given back 20 times:
what is only looked at is given back each time."""

QUORUM_SINCE = (3, 10)
"""Before this version messages in quorum queues have no time to live: delays would last for ever, and so would a dead node's beat."""

Arguments = dict[str, Any]

_UNTYPED: Arguments = {}
_TYPED: dict[str, tuple[Arguments, ...]] = {
    CLASSIC: ({"x-queue-type": CLASSIC},),
    QUORUM: ({"x-queue-type": QUORUM, "x-delivery-limit": -1}, {"x-queue-type": QUORUM}),
}
_BEFORE: dict[str, tuple[Arguments, ...]] = {CLASSIC: (_UNTYPED,), QUORUM: ({"x-queue-type": QUORUM},)}


def kinds(wanted: str, version: tuple[int, ...]) -> list[Arguments]:
    """What to declare a queue with so that it has a type: the first is what is wanted, the rest is what may be there already."""
    if version < QUORUM_SINCE:
        return [_UNTYPED]
    known = _TYPED if version >= TYPED_SINCE else _BEFORE
    other = CLASSIC if wanted == QUORUM else QUORUM
    found: list[Arguments] = []
    for arguments in (*known[wanted], _UNTYPED, *known[other]):
        if arguments not in found:
            found.append(arguments)
    return found


def declare(connection: Connection, what: str, methods: Callable[[Arguments], Iterable[Frame]]) -> None:
    """Declare queues of our own.

    Args:
        connection: its options say of which type.
        what: the queues' name, for people.
        methods: makes the declarations, from what each queue's arguments have beside its own.

    Raises:
        ChannelClosed: they are there with other settings that are ours, or may not be declared.
    """
    connection.ensure()
    first: ChannelClosed | None = None
    wanted = connection.options.queue_type
    for arguments in kinds(wanted, connection.server_version):
        try:
            connection.call(*methods(arguments))
        except ChannelClosed as error:
            if error.code != 406:
                raise
            first = first or error
        else:
            if first is not None and wanted == QUORUM:
                logger.warning(
                    "%s is on the server with another type than %s, and may be away with one of its nodes (%s). To change that, stop all "
                    "workers and delete it when it is empty", what, wanted, first.text,
                )  # fmt: skip
            return
    assert first is not None
    raise first
