"""Kombu's messages as envelopes of bytes, and back."""

from __future__ import annotations

from base64 import b64encode
from binascii import a2b_base64
from typing import Any

from celeriac.compat.envelope import decode, encode_json
from celeriac.message import Message

PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode", "expiration", "type", "message_id", "app_id",
              "timestamp", "MessageGroupId", "MessageDeduplicationId")  # fmt: skip
"""Those that travel on.  The rest are the transport's own."""


def raw_of(message: Any, queue: str) -> bytes:
    """The envelope of a message that a transport gave."""
    body = message.body
    info = message.delivery_info or {}
    properties = {name: message.properties[name] for name in PROPERTIES if message.properties.get(name) is not None}
    properties.setdefault("priority", info.get("priority") or 0)
    properties["delivery_info"] = {
        "exchange": info.get("exchange") or "",
        "routing_key": info.get("routing_key") or queue,
        "redelivered": is_redelivered(message),
    }
    properties["body_encoding"] = "base64"
    properties["delivery_tag"] = str(message.delivery_tag)
    envelope = {
        "body": b64encode(body.encode() if isinstance(body, str) else bytes(body)).decode(),
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        # Kombu has decompressed the body already.
        "headers": {name: value for name, value in (message.headers or {}).items() if name != "compression"},
        "properties": properties,
    }
    return encode_json(envelope).encode()


def is_redelivered(message: Any) -> bool:
    """Whether the transport says that it gave this message away before."""
    info = message.delivery_info or {}
    received = (info.get("sqs_message") or {}).get("Attributes", {}).get("ApproximateReceiveCount")
    return bool(
        info.get("redelivered") or (message.headers or {}).get("redelivered") or (received and int(received) > 1)
    )


def publish(channel: Any, message: Message, **headers: Any) -> None:
    """Send an envelope to its queue, with more headers."""
    envelope = decode(message.raw)
    properties = dict(envelope["properties"])
    body: Any = envelope.get("body") or ""
    if properties.pop("body_encoding", None) == "base64":
        body = a2b_base64(body)
    for own in ("delivery_info", "delivery_tag"):
        properties.pop(own, None)
    prepared = channel.prepare_message(
        body,
        priority=properties.pop("priority", 0),
        content_type=envelope.get("content-type"),
        content_encoding=envelope.get("content-encoding"),
        headers={**(envelope.get("headers") or {}), **headers},
        properties=properties,
    )
    channel.basic_publish(prepared, exchange="", routing_key=message.queue)


def identity(raw: bytes) -> str:
    """What stays the same when a message is delivered again."""
    headers = decode(raw).get("headers") or {}
    return f"{headers.get('id')}:{headers.get('retries')}"
