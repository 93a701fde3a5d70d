"""Brings the schema up to date, and refuses one that this version cannot use.

A migration is a folder ``migrations/<number>``; its ``.sql`` files are run in the order of their names, in one transaction
with all others that are missing.  To add one: make the next folder.  ``{schema}`` in a file stands for the schema's name.
A version of Celeriac uses a schema of its own version, or of a newer one whose migrations say that they leave older code
working: with a first line ``-- needs: <oldest version of the schema whose code may go on>`` in one of their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import psycopg

from celeriac.errors import ConfigurationError, SchemaError
from celeriac.postgres_store.connection import Connection
from celeriac.postgres_store.options import PostgresOptions

OLDEST_SERVER = 14
"""It keeps indexes of tables that turn over small by itself (bottom-up deletion)."""

_NEEDS = re.compile(r"\A-- needs: (\d+)$", re.MULTILINE)

# From the catalogue and not by to_regclass, which may answer from a cache of before the lock was waited for.
_STATE = """\
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = '{schema}' AND c.relname = 'migrations'),
    current_setting('server_version_num')::integer / 10000,
    current_setting('server_version'), current_setting('server_encoding'), current_user
"""

_APPLIED = "SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM {schema}.migrations"

_TABLE = """\
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.migrations (
    version    integer PRIMARY KEY,
    needs      integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT current_user
);
"""

_ROW = "INSERT INTO {schema}.migrations (version, needs) VALUES ({version}, {needs});\n"

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('{schema}.migrations'), 0)"


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    needs: int
    """The oldest version of the schema whose code may go on."""
    files: tuple[tuple[str, str], ...]
    """Names and texts."""

    def script(self, schema: str) -> str:
        """Everything that it does."""
        texts = [text.replace("{schema}", schema) for _, text in self.files]
        row = _ROW.format(schema=schema, version=self.version, needs=self.needs)
        return "\n".join([*texts, row])


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps, oldest first."""
    folder = files("celeriac.postgres_store").joinpath("migrations")
    versions = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
    return tuple(_read(version) for version in versions)


def _read(version: int) -> Migration:
    folder = files("celeriac.postgres_store").joinpath("migrations").joinpath(f"{version:04}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    texts = tuple((name, folder.joinpath(name).read_text(encoding="utf-8")) for name in names)
    found = [int(match[1]) for _, text in texts if (match := _NEEDS.search(text))]
    return Migration(version, max(found, default=version), texts)


def newest() -> int:
    """The version that this code knows."""
    return migrations()[-1].version


def script(schema: str, after: int = 0) -> str:
    """The SQL that brings a schema from a version to the newest, for a person to read and run; empty when it is that."""
    steps = [step.script(schema) for step in _missing_steps(after)]
    return "\n".join(["BEGIN;", _TABLE.replace("{schema}", schema), *steps, "COMMIT;"]) if steps else ""


def prepare(connection: Connection, options: PostgresOptions) -> None:
    """Look at server and schema, and create or update the schema when that is wanted and this role may.

    Raises:
        SchemaError: the server is too old, or the schema is not what this code needs and cannot be made so.
    """
    version, user = applied(connection, options)
    if version >= newest():
        return
    if not options.migrate:
        raise SchemaError(_missing(options, version, user))
    try:
        migrate(connection, options)
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(f"{_missing(options, version, user)} ({str(error).strip()})") from error


def applied(connection: Connection, options: PostgresOptions) -> tuple[int, str]:
    """The schema's version, 0 for none, and who asks.  Raises ``SchemaError`` for what this code cannot use."""
    row = connection.execute(_STATE.replace("{schema}", options.schema).encode()).fetchone()
    assert row is not None
    exists, major, full, encoding, user = row
    where = f"PostgreSQL at {options.safe_url()}"
    if major < OLDEST_SERVER:
        raise SchemaError(f"{where} is version {full}; Celeriac needs {OLDEST_SERVER} or newer")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"{where}: the database's encoding is {encoding}; Celeriac needs one made with ENCODING 'UTF8'"
        )
    if not exists:
        return 0, user
    row = connection.execute(_APPLIED.replace("{schema}", options.schema).encode()).fetchone()
    assert row is not None
    version, needs = row
    if needs > newest():
        raise SchemaError(
            f"{where}: the schema {options.schema} is of version {version}, and this Celeriac knows {newest()}; upgrade it"
        )
    return version, user


def migrate(connection: Connection, options: PostgresOptions) -> list[int]:
    """Run the migrations that are missing, all or none; return their versions.  Of several at once one does the work."""
    done: list[int] = []
    with connection.transaction():
        connection.execute(_LOCK.replace("{schema}", options.schema).encode())
        version, _ = applied(connection, options)
        for step in _missing_steps(version):
            if not version and not done:
                connection.execute(_TABLE.replace("{schema}", options.schema).encode())
            connection.execute(step.script(options.schema).encode())
            done.append(step.version)
    return done


def _missing_steps(version: int) -> Iterator[Migration]:
    return (step for step in migrations() if step.version > version)


def _missing(options: PostgresOptions, version: int, user: str) -> str:
    state = f"is of version {version}, older than this Celeriac's {newest()}" if version else "does not exist"
    return (
        f"PostgreSQL at {options.safe_url()}: the schema {options.schema} {state}, and the role {user} may not change that; "
        "run `celeriac -A … migrate-store` as a role that may"
    )
