"""No statement on the SQLite store reads more of a table than it must."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import celeriac
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.sqlite_store.statements import statements

PACKAGES = ("sqlite_store", "brokers.sqlite", "backends.sqlite")

BOUNDED = {
    "owners": "as many as worker slots",
    "leases": "only counted, and only what is in flight",
    "dead": "only counted, by its narrow index; as many as dead_limit",
}


def all_statements():
    for package in PACKAGES:
        folder = Path(celeriac.__file__).parent / package.replace(".", "/")
        for path in sorted(folder.glob("*.sql")):
            if path.name != "schema.sql":
                for name, text in statements(f"celeriac.{package}", path.name).items():
                    yield pytest.param(text, id=f"{path.stem}-{name}")


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "celeriac.sqlite3"
    with closing(SQLiteBroker(path)) as broker:
        broker.ping()
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def plan(connection, statement):
    count = max(statement.count("?"), *(n for n in range(11) if f"?{n}" in statement or n == 0))
    for parameters in range(count + 1):
        try:
            return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * parameters)]
        except sqlite3.ProgrammingError:
            continue
    raise AssertionError(statement)


@pytest.mark.parametrize("statement", list(all_statements()))
def test_nothing_is_scanned_or_sorted(connection, statement):
    for step in plan(connection, statement):
        assert "TEMP B-TREE" not in step, step
        words = step.split()
        if words[0] != "SCAN" or words[1].startswith("("):
            continue
        limited = "LIMIT" in statement and ("USING" in step or "ORDER BY id" in statement)
        assert words[1] in BOUNDED or limited or words[1:] == ["CONSTANT", "ROW"], step


def test_every_statement_has_been_looked_at():
    assert len(list(all_statements())) > 50
