"""Errors of connecting, with the way out."""

from __future__ import annotations

import ssl

from celeriac.brokers.rabbitmq.options import Address, RabbitOptions
from celeriac.errors import AccessDenied, SchemaError

OLDEST = (3, 8)
"""Of RabbitMQ's versions."""

_CERTIFICATE_HINTS = {
    10: "It has expired",
    18: "It is signed by itself: give it as ca_certs",
    19: "Give the CA that signed it as ca_certs (ssl_ca_certs in the URL)",
    20: "Give the CA that signed it as ca_certs (ssl_ca_certs in the URL)",
    62: "Write the host in the URL as the certificate names it, or give that name as server_hostname",
    64: "Write the host in the URL as the certificate names it, or give that name as server_hostname",
}
"""By OpenSSL's code of what is wrong with a certificate."""


def tls_refused(error: ssl.SSLError, address: Address) -> AccessDenied:
    """A TLS handshake that failed."""
    where = f"RabbitMQ at {address}"
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _CERTIFICATE_HINTS.get(error.verify_code, "See ca_certs and cert_reqs of broker_use_ssl")
        return AccessDenied(f"{where} shows a certificate that is not to be trusted ({error.verify_message}). {hint}")
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return AccessDenied(f"{where} does not speak TLS on this port; write amqp:// for a server without TLS")
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or "UNKNOWN_CA" in reason:
        return AccessDenied(
            f"{where} wants a client's certificate that it trusts ({reason}): set certfile and keyfile of broker_use_ssl"
        )
    return AccessDenied(f"{where} and this client do not agree on TLS: {reason}")


def login_refused(options: RabbitOptions, text: str) -> AccessDenied:
    """A user or a password that the server does not take."""
    return AccessDenied(
        f"RabbitMQ at {options.url} refused the login of {options.user!r}: {text}. Check user and password in the URL"
    )


def vhost_refused(options: RabbitOptions, text: str) -> AccessDenied:
    """A virtual host that is not there, or not for this user."""
    return AccessDenied(
        f"RabbitMQ at {options.url} does not let {options.user!r} use the virtual host {options.vhost!r}: {text}. Create it "
        "(rabbitmqctl add_vhost) or grant rights (rabbitmqctl set_permissions)"
    )


def check_version(product: object, version: str, address: Address) -> tuple[int, ...]:
    """Refuse a server that is too old; return its version.  One that does not call itself RabbitMQ is taken for the oldest that will do."""
    parts = version.split(".")
    if product != "RabbitMQ" or len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return OLDEST
    found = int(parts[0]), int(parts[1])
    if found < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise SchemaError(f"RabbitMQ {version} at {address} is too old: Celeriac needs {wanted} or newer")
    return found
