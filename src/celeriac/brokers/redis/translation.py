"""What redis-py raises, in this package's own words: the cause, and the way out."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from celeriac.brokers.redis.options import RedisOptions
from celeriac.errors import AccessDenied, OwnerLost, StoreError, StoreFull, StoreUnavailable

UNAVAILABLE = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)

NOT_NOW = ("MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "UNKILLABLE", "BUSY", "UNBLOCKED", "NOREPLICAS")
"""Errors that pass by themselves.  ``UNBLOCKED`` ends a wait on a master that has become a replica."""

DENIED = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)

CERTIFICATE_HINTS = {
    9: "It is not valid yet: is one of the clocks wrong?",
    10: "It has expired: renew it on the server",
    18: "Set ssl_ca_certs to the file of the CA that signed it",
    19: "Set ssl_ca_certs to the file of the CA that signed it",
    20: "Set ssl_ca_certs to the file of the CA that signed it",
    21: "Set ssl_ca_certs to the file of the CA that signed it",
    62: "Write the host in the URL as the certificate names it",
    64: "Write the address in the URL as the certificate names it",
}
"""By OpenSSL's verify codes."""


@contextmanager
def translated(options: RedisOptions) -> Iterator[None]:
    """Raise redis-py's errors as this package's own."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise translate(error, options) from error
    except OSError as error:
        raise _unreachable(error, options) from error


def translate(error: redis.exceptions.RedisError, options: RedisOptions) -> Exception:
    """This package's error for one of redis-py's."""
    where = f"Redis at {options.safe_url()}"
    text = str(error)
    if isinstance(error, DENIED) or "NOPERM" in text:
        return _denied(where, text, options)
    if isinstance(error, UNAVAILABLE):
        return _unreachable(error, options)
    if "OWNERLOST" in text:
        return OwnerLost("the leases of this worker slot were taken over, or the store has lost them")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        return StoreFull(f"{where} takes no more data: {text}")
    if is_readonly(error) or text.startswith(NOT_NOW):
        return StoreUnavailable(f"{where} is not available: {text}")
    return StoreError(f"{where} answered: {text}")


def is_readonly(error: BaseException) -> bool:
    """Whether the server has become a replica.  Before Redis 7 a script's error has that somewhere inside."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or "READONLY" in str(error)


def _denied(where: str, text: str, options: RedisOptions) -> AccessDenied:
    if "permission" in text.lower():
        return AccessDenied(
            f"{where} refuses the user {options.user()!r}: {text.removeprefix('NOPERM ')}. "
            "`celeriac acl redis` prints the rights that producers, workers and monitors need"
        )
    return AccessDenied(
        f"{where} refuses the user {options.user()!r}: {text}. Check the user and the password in the URL"
    )


def _unreachable(error: Exception, options: RedisOptions) -> Exception:
    where = f"Redis at {options.safe_url()}"
    cause = _tls_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = CERTIFICATE_HINTS.get(cause.verify_code, "See ssl_ca_certs and ssl_cert_reqs")
        return AccessDenied(f"{where} shows a certificate that is not to be trusted ({cause.verify_message}). {hint}")
    if cause is not None:
        return AccessDenied(f"{where} and this client do not agree on TLS: {_reason(cause)}")
    return StoreUnavailable(f"{where} is not available: {error}{_hint(error, options)}")


def _hint(error: Exception, options: RedisOptions) -> str:
    """What it may be, where the error itself does not tell."""
    if options.sentinel is not None and "No master found" in str(error):
        return ". Is master_name right, and do enough sentinels agree?"
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return ". Does it want a client's certificate (ssl_certfile, ssl_keyfile)?"
    if any("handshake operation timed out" in str(cause) for cause in causes):
        return ". Does it speak TLS on this port? If not, write redis://"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of the TLS handshake that is behind another."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return cause
    return None


def _reason(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not speak it on this port; write redis:// for a server without TLS"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or "UNKNOWN_CA" in reason:
        return f"the server wants a client's certificate that it trusts ({reason}): set ssl_certfile and ssl_keyfile"
    return reason
