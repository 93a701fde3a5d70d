"""Kombu's JSON envelope, as its virtual transports (Redis among them) put it on the wire, and Celery's message inside."""

from __future__ import annotations

import json
import json.encoder
import json.scanner
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from kombu.compression import compress, decompress
from kombu.exceptions import EncodeError
from kombu.serialization import dumps, loads
from kombu.utils.json import JSONEncoder
from kombu.utils.uuid import uuid

from celeriac.compat import parcel

Envelope = dict[str, Any]


def _json_encoder() -> Callable[[Any], str]:
    """Kombu's JSON, with one encoder for all calls: the standard library makes a new one for each, which takes longer than
    encoding what a task is usually given.  A value that contains itself is a ``RecursionError``.
    """
    kombu = JSONEncoder()
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C accelerator
        return kombu.encode
    text = json.encoder.encode_basestring_ascii
    chunks: Any = make(None, kombu.default, text, None, ": ", ", ", False, False, True)
    return lambda value: "".join(chunks(value, 0))


encode_json = _json_encoder()

_decoder = json.JSONDecoder()
_scan: Any = json.scanner.make_scanner(_decoder)  # type: ignore[arg-type]  # typeshed has the type for the context

PLAIN_JSON = "application/json"


def encode(
    body: Any,
    *,
    serializer: str,
    compression: str | None,
    headers: dict[str, Any],
    properties: dict[str, Any],
    exchange: str,
    routing_key: str,
) -> bytes:
    """Serialise, compress and wrap a message's body.

    Raises:
        kombu.exceptions.EncodeError: the body cannot be serialised.
    """
    content_type, content_encoding, raw = _payload(body, serializer, compression, headers)
    properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
    properties["body_encoding"] = "base64"
    properties["delivery_tag"] = uuid()
    envelope = {
        "body": b64encode(raw).decode(),
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": properties,
    }
    return encode_json(envelope).encode()


def encode_parcel(
    body: Any,
    *,
    serializer: str,
    compression: str | None,
    headers: dict[str, Any],
    properties: dict[str, Any],
    exchange: str,
    routing_key: str,
) -> bytes:
    """The same for AMQP, which has properties of its own and needs no envelope.

    Raises:
        kombu.exceptions.EncodeError: the body cannot be serialised.
    """
    content_type, content_encoding, raw = _payload(body, serializer, compression, headers)
    try:
        return parcel.encode(raw, content_type, content_encoding, headers, properties, exchange, routing_key)
    except (TypeError, ValueError) as error:
        raise EncodeError(str(error)) from error


def _payload(body: Any, serializer: str, compression: str | None, headers: dict[str, Any]) -> tuple[str, str, bytes]:
    content_type, content_encoding, payload = serialise(body, serializer)
    if compression:
        payload, headers["compression"] = compress(payload, compression)
    return content_type, content_encoding, payload.encode() if isinstance(payload, str) else payload


def serialise(body: Any, serializer: str) -> tuple[str, str, str | bytes]:
    """Content type, content encoding and bytes of a body."""
    if serializer == "json":
        try:
            return PLAIN_JSON, "utf-8", encode_json(body)
        except (TypeError, ValueError, RecursionError):
            pass  # kombu's own way raises the error that Celery's users know
    content_type, content_encoding, payload = dumps(body, serializer)
    return content_type, content_encoding, payload


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text.  Goes to the scanner directly: there is hardly ever white space around it to skip.

    Raises:
        ValueError: it is not JSON.
    """
    text = raw.decode()
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _decoder.decode(text)
    return value if end == len(text) else _decoder.decode(text)


def decode(raw: bytes) -> Envelope:
    """Parse an envelope.

    Raises:
        ValueError: it is not JSON, or not an envelope.
    """
    if raw[:1] == b"\xa1":
        return parcel.decode(raw)
    envelope = parse_json(raw)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("properties"), dict):
        raise ValueError("not a kombu envelope")
    return envelope


def decode_body(envelope: Envelope, accept: set[str]) -> Any:
    """The Python value of an envelope's body.

    Raises:
        kombu.exceptions.ContentDisallowed: a content type that the app does not accept.
        kombu.exceptions.DecodeError, ValueError: the bytes are not what they claim to be.
    """
    body = envelope.get("body") or ""
    if envelope["properties"].get("body_encoding") == "base64":
        try:
            raw = a2b_base64(body)
        except Base64Error as error:
            raise ValueError(f"the body is not base64: {error}") from error
    else:
        raw = body.encode() if isinstance(body, str) else body
    headers = envelope.get("headers")
    compression = headers.get("compression") if headers else None
    if compression:
        raw = decompress(raw, compression)
    content_type, content_encoding = envelope.get("content-type"), envelope.get("content-encoding")
    if content_type == PLAIN_JSON and PLAIN_JSON in accept and content_encoding == "utf-8" and b"__type__" not in raw:
        return parse_json(raw)
    return loads(raw, content_type, content_encoding, accept=accept)


def amend(raw: bytes, **headers: Any) -> bytes:
    """The same envelope, marked as redelivered and with more headers.  The body stays byte for byte as it was."""
    if parcel.is_parcel(raw):
        return parcel.amend(raw, headers)
    envelope = decode(raw)
    envelope["headers"] = {**(envelope.get("headers") or {}), **headers}
    properties = envelope["properties"]
    properties["delivery_info"] = {**(properties.get("delivery_info") or {}), "redelivered": True}
    return json.dumps(envelope).encode()


def with_headers(raw: bytes, **headers: Any) -> bytes:
    """The same envelope with more headers.  The body stays byte for byte as it was."""
    envelope = decode(raw)
    envelope["headers"] = {**(envelope.get("headers") or {}), **headers}
    return json.dumps(envelope).encode()


def priority_of(envelope: Envelope) -> int:
    """The message's priority; 0 where it does not say."""
    priority = envelope["properties"].get("priority")
    return max(0, min(priority, 255)) if type(priority) is int else 0
