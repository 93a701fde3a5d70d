"""Turns psycopg's errors into this package's, with a text that names the server and the way out.

What the server says is told by its SQLSTATE (appendix A of PostgreSQL's manual).  An attempt to connect has none: libpq keeps
only the text, so that decides there.
"""

from __future__ import annotations

import psycopg

from celeriac.errors import (
    AccessDenied,
    CeleriacError,
    ConfigurationError,
    OwnerLost,
    SchemaError,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from celeriac.postgres_store import certificates
from celeriac.postgres_store.options import PostgresOptions

OWNER_LOST = "CL001"
"""Raised by our own functions."""

TRY_AGAIN = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the transaction was rolled back and can be run again at once."""

_BY_STATE: tuple[tuple[str, type[CeleriacError], str], ...] = (
    ("53100", StoreFull, "has no room left on its disk; nothing was written"),
    ("53200", StoreFull, "is out of memory; nothing was written"),
    ("53300", StoreUnavailable, "has no connection free: raise max_connections, or put PgBouncer before it"),
    ("53", StoreUnavailable, "is out of resources"),
    ("57", StoreUnavailable, "is not available"),
    ("08", StoreUnavailable, "is not available"),
    (
        "25006",
        StoreUnavailable,
        "is read-only: a standby? target_session_attrs=read-write in the URL finds the primary",
    ),
    ("40", StoreUnavailable, "rolled back"),
    ("55P03", StoreUnavailable, "is busy"),
    (
        "42501",
        AccessDenied,
        "refuses this role: grant it rights on the schema {schema} (docs/postgres.md has the grants)",
    ),
    ("3F000", SchemaError, "has lost the schema {schema}; run `celeriac -A … migrate-store`"),
    ("42P01", SchemaError, "has lost tables of the schema {schema}; run `celeriac -A … migrate-store`"),
    ("42883", SchemaError, "has lost functions of the schema {schema}; run `celeriac -A … migrate-store`"),
)

_BY_TEXT: tuple[tuple[str, type[CeleriacError], str], ...] = (
    ("password authentication failed", AccessDenied, "refuses this user: check the URL's user and password"),
    ("no password supplied", AccessDenied, "wants a password: postgresql://user:password@…"),
    ("no pg_hba.conf entry", AccessDenied, "lets this user not in from here: see its pg_hba.conf"),
    ("role", ConfigurationError, "does not know this user: check the URL, or create the role"),
    ("database", ConfigurationError, "has no such database: check the URL, or create it with `createdb`"),
    ("permission denied for database", AccessDenied, "lets this role not connect: GRANT CONNECT ON DATABASE"),
    ("valid client certificate", AccessDenied, "wants a client's certificate: sslcert and sslkey in the URL"),
    (
        "does not match host name",
        AccessDenied,
        "shows a certificate that is not to be trusted. Write the host in the URL as the certificate names it",
    ),
    (
        "root certificate file",
        AccessDenied,
        "needs the file of the CA that signed its certificate: sslrootcert in the URL",
    ),
    ("server does not support SSL", ConfigurationError, "has no TLS, and the URL's sslmode wants it"),
    ("could not translate host name", StoreUnavailable, "cannot be found"),
)


def translated(error: Exception, options: PostgresOptions) -> CeleriacError:
    """The error to raise in place of one of psycopg's."""
    where = f"PostgreSQL at {options.safe_url()}"
    text = _one_line(error)
    state = getattr(error, "sqlstate", None)
    if state is None:
        return _without_state(error, where, text, options)
    if state == OWNER_LOST:
        return OwnerLost(text)
    for start, kind, meaning in _BY_STATE:
        if state.startswith(start):
            return kind(f"{where} {meaning.format(schema=options.schema)} ({text})")
    return StoreError(f"{where} answered: {text} (SQLSTATE {state})")


def _without_state(error: Exception, where: str, text: str, options: PostgresOptions) -> CeleriacError:
    if isinstance(error, psycopg.OperationalError):
        if "certificate verify failed" in text:
            return AccessDenied(
                f"{where} shows a certificate that is not to be trusted. {certificates.complaint(options)}"
            )
        for sign, kind, meaning in _BY_TEXT:
            if sign in text and (
                sign not in ("role", "database") or (f'{sign} "' in text and "does not exist" in text)
            ):
                return kind(f"{where} {meaning} ({text})")
        return StoreUnavailable(f"{where} is not available: {text}")
    if isinstance(error, (psycopg.InterfaceError, OSError)):
        return StoreUnavailable(f"{where} is not available: {text}")
    return StoreError(f"{where}: {type(error).__name__}: {text}")


def _one_line(error: Exception) -> str:
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return " ".join(str(error).split())
