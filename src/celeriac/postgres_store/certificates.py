"""What is wrong with a server's certificate.

libpq only says that it could not verify it.  So after such a refusal the server is asked for its certificate once more, over a
connection that ends with the handshake.  The request for TLS is that of PostgreSQL's manual, section "Message Formats", SSLRequest.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct

import psycopg

from celeriac.postgres_store.options import PostgresOptions

_REQUEST = struct.pack(">ii", 8, 80877103)

_SECONDS = 3.0

_HINTS = {
    9: "It is not valid yet: is one of the clocks wrong?",
    10: "It has expired: renew it on the server",
    18: "Set sslrootcert to the file of the CA that signed it",
    19: "Set sslrootcert to the file of the CA that signed it",
    20: "Set sslrootcert to the file of the CA that signed it",
    21: "Set sslrootcert to the file of the CA that signed it",
}
"""By OpenSSL's verify codes."""

UNKNOWN = "It has expired, or sslrootcert is not the file of the CA that signed it"


def complaint(options: PostgresOptions) -> str:
    """What is wrong with the certificate, and the way out; in general terms when it cannot be seen from here."""
    known = psycopg.conninfo.conninfo_to_dict(options.conninfo)
    host = str(known.get("hostaddr") or known.get("host") or os.environ.get("PGHOST", "")).partition(",")[0]
    port = str(known.get("port") or os.environ.get("PGPORT", "5432")).partition(",")[0]
    authority = str(known.get("sslrootcert") or os.environ.get("PGSSLROOTCERT", ""))
    if not host or host.startswith("/"):
        return UNKNOWN
    try:
        context = ssl.create_default_context(cafile=None if authority in ("", "system") else authority)
        context.check_hostname = False
        with socket.create_connection((host, int(port)), _SECONDS) as plain:
            plain.settimeout(_SECONDS)
            plain.sendall(_REQUEST)
            if plain.recv(1) == b"S":
                context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return f"{error.verify_message[:1].upper()}{error.verify_message[1:]}. {_HINTS.get(error.verify_code, UNKNOWN)}"
    except (OSError, ValueError):
        pass
    return UNKNOWN
