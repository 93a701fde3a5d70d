"""Messages that were delivered before: whose are they?

The server marks what comes again, whether its last holder released it, died before it began, died in its body, or still runs it
and has only lost its connection.  The owners' notes tell these apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from celeriac.brokers.rabbitmq import wire
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.owners import Owners, key_of

UNSURE_SECONDS = 5.0
"""After a connection was made, the owners that lost theirs at the same time (a restart of the server) get so long to write their
notes anew.  Until then nothing that was delivered before is started.  And in this time all messages are looked up: a server
that was killed may have forgotten which it had delivered."""

PAUSE = 0.05
"""Seconds between looks at a message that somebody else holds."""


class Suspects:
    """Sorts messages into those to run, to drop, and to leave for later."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._met_at = float("-inf")

    def are_about(self, connection: Connection) -> bool:
        """Whether messages that others hold may come, or have come lately: they are to be looked past then."""
        return _is_recent(connection) or time.monotonic() - self._met_at < UNSURE_SECONDS

    def sift(
        self, gotten: Sequence[wire.Gotten], connection: Connection
    ) -> tuple[list[wire.Gotten], list[int], list[int]]:
        """Messages that may be run; tags to acknowledge because others have settled them; tags to give back for now.

        Args:
            gotten: what came.
            connection: that it came by.
        """
        recent = _is_recent(connection)
        if not recent and not any(got.redelivered for got in gotten):
            return list(gotten), [], []
        keys = {got.tag: key_of(got.raw) for got in gotten if got.redelivered or recent}
        held, settled = self._owners.look_up([got.raw for got in gotten if got.tag in keys])
        clear: list[wire.Gotten] = []
        drop: list[int] = []
        hold: list[int] = []
        for got in gotten:
            key = keys.get(got.tag)
            if key in settled:
                drop.append(got.tag)
            elif key in held or (recent and got.redelivered):
                hold.append(got.tag)
            else:
                clear.append(got)
        if hold:
            self._met_at = time.monotonic()
        return clear, drop, hold


def _is_recent(connection: Connection) -> bool:
    return connection.reconnected and time.monotonic() - connection.connected_at < UNSURE_SECONDS
