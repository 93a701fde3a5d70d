"""The reference system: a print shop with an API, two worker pools and a mail server.  ``make demo`` runs it."""
