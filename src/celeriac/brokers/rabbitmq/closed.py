"""Errors of a connection."""

from __future__ import annotations

from celeriac.errors import StoreUnavailable


class ChannelClosed(StoreUnavailable):
    """The server refused an operation and closed the channel.  Who cannot tell why tries again, on another channel."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"RabbitMQ refused: {text} ({code})")
        self.code = code
        self.text = text


class Blocked(StoreUnavailable):
    """The server has stopped taking messages (its memory or disk alarm); nothing was sent."""
