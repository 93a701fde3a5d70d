"""Effects exactly once: a key that is recorded inside the transaction that has the effect.

A task may run twice whatever a queue promises: its process can die after its transaction is committed and before anybody knows.
So the transaction itself says that it was done.  Either both are committed, the effect and the key, or neither is::

    with Session.begin() as session:
        if once.sqlalchemy(session, f"order:{order_id}"):
            session.add(Payment(order_id=order_id))

Of two transactions with one key at the same time the second waits for the first: until it commits (then the second is not first), or
until it is rolled back (then it is).  The keys are in the table ``celeriac_once`` of the user's own database; see
:data:`CREATE_TABLE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = "celeriac_once"
"""The table's name; also written out in the statements below."""

LONGEST_KEY = 255

CREATE_TABLE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    name VARCHAR({LONGEST_KEY}) NOT NULL PRIMARY KEY,
    at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""
"""Makes the table, on PostgreSQL, MySQL and SQLite.  For a migration: ``migrations.RunSQL(once.CREATE_TABLE)`` in Django,
``op.execute(once.CREATE_TABLE)`` in Alembic.  Nothing deletes old keys: do so when no message that old can come again."""

_INSERT = "INSERT INTO celeriac_once (name) VALUES ({mark}) ON CONFLICT (name) DO NOTHING"
_INSERT_MYSQL = "INSERT IGNORE INTO celeriac_once (name) VALUES ({mark})"


def dbapi(connection: Any, key: str) -> bool:
    """Record a key in the transaction of a DB-API connection (psycopg, psycopg2, sqlite3, MySQL drivers).

    Args:
        connection: in a transaction, or one that begins a transaction with the next statement.
        key: text of at most 255 characters.

    Returns:
        Whether the key is new, which means that the effect is to be had now.

    Raises:
        ConfigurationError: the connection commits each statement by itself, so that the key would be recorded without the effect.
        ValueError: a key that cannot be one.
    """
    if _commits_by_itself(connection):
        raise _no_transaction("the connection commits each statement by itself")
    driver = type(connection).__module__.partition(".")[0]
    mark = "?" if driver in {"sqlite3", "pysqlite3"} else "%s"
    statement = _INSERT_MYSQL if driver in {"MySQLdb", "pymysql", "mysql"} else _INSERT
    cursor = connection.cursor()
    try:
        cursor.execute(statement.format(mark=mark), (_checked(key),))
        return bool(cursor.rowcount == 1)
    finally:
        cursor.close()


def _commits_by_itself(connection: Any) -> bool:
    if getattr(connection, "in_transaction", False) is True:  # sqlite3
        return False
    if type(connection).__module__.startswith("sqlite3"):
        automatic = getattr(connection, "autocommit", None)  # from Python 3.12 on; -1 leaves it to isolation_level
        return connection.isolation_level is None if automatic in (None, -1) else bool(automatic)
    automatic = getattr(connection, "autocommit", False)
    automatic = automatic() if callable(automatic) else automatic
    info = getattr(connection, "info", None)
    return bool(automatic) and getattr(info, "transaction_status", 0) == 0  # psycopg: idle


def sqlalchemy(session: Any, key: str) -> bool:
    """Record a key in the transaction of an SQLAlchemy ``Session`` or ``Connection``.  As :func:`dbapi`.

    With an ``AsyncSession``: ``await session.run_sync(once.sqlalchemy, key)``.
    """
    from sqlalchemy import text

    connection = session.connection() if hasattr(session, "connection") and hasattr(session, "flush") else session
    asked = connection.get_execution_options().get("isolation_level")
    if asked == "AUTOCOMMIT" or _commits_by_itself(connection.connection.dbapi_connection):
        raise _no_transaction("the connection's isolation level is AUTOCOMMIT")
    statement = _INSERT_MYSQL if connection.dialect.name in {"mysql", "mariadb"} else _INSERT
    return bool(connection.execute(text(statement.format(mark=":name")), {"name": _checked(key)}).rowcount == 1)


def django(key: str, using: str = "default") -> bool:
    """Record a key in the transaction of a Django database, inside ``transaction.atomic()``.  As :func:`dbapi`."""
    from django.db import connections

    connection = connections[using]
    if not connection.in_atomic_block:
        raise _no_transaction("it is not called inside transaction.atomic()")
    statement = _INSERT_MYSQL if connection.vendor == "mysql" else _INSERT
    with connection.cursor() as cursor:
        cursor.execute(statement.format(mark="%s"), (_checked(key),))
        return bool(cursor.rowcount == 1)


def create_table(execute: Callable[[str], object]) -> None:
    """Make the table if it is not there: ``create_table(connection.execute)``."""
    execute(CREATE_TABLE)


def _checked(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise ValueError(f"A key is text of 1 to {LONGEST_KEY} characters, not {key!r}")
    return key


def _no_transaction(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"There is no transaction to record the key in: {why}. The key and the effect must be committed together"
    )
