"""Effects exactly once, in the user's own transaction: killed at every statement, and run again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading

import psycopg
import pytest
import sqlalchemy

from celeriac.errors import ConfigurationError
from celeriac.integrations import once
from tests.workers import ROOT

PROGRAM = ROOT / "tests" / "apps" / "exactly_once.py"


@pytest.mark.parametrize(
    "kind", ["sqlite3", "django", "django postgres", "sqlalchemy", "sqlalchemy postgres", "psycopg"]
)
def test_a_process_that_is_killed_at_any_statement_has_its_effect_once_when_it_is_run_again(request, kind, tmp_path):
    place = {
        "psycopg": lambda: request.getfixturevalue("postgres_url"),
        "django postgres": lambda: request.getfixturevalue("postgres_url"),
        "sqlalchemy": lambda: f"sqlite:///{tmp_path}/shop.sqlite3",
        "sqlalchemy postgres": lambda: request.getfixturevalue("postgres_url").replace(
            "postgresql://", "postgresql+psycopg://"
        ),
    }.get(kind, lambda: str(tmp_path / "shop.sqlite3"))()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    ended = subprocess.run(
        [sys.executable, str(PROGRAM), kind.split()[0], place],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["kills"] >= 5
    assert sorted(seen["effects"]) == sorted([f"p{point}", 1, 2] for point in range(1, seen["kills"] + 2))


def test_of_two_transactions_at_once_the_second_waits_and_is_first_only_when_the_first_is_rolled_back(postgres_url):
    answers = []

    def second(key):
        with psycopg.connect(postgres_url) as connection:
            answers.append(once.dbapi(connection, key))

    with psycopg.connect(postgres_url, autocommit=True) as admin:
        once.create_table(admin.execute)
        for key, commits in (("committed", True), ("rolled back", False)):
            first = psycopg.connect(postgres_url)
            assert once.dbapi(first, key)
            thread = threading.Thread(target=second, args=(key,))
            thread.start()
            first.commit() if commits else first.rollback()
            first.close()
            thread.join(10)
        admin.execute(f"DROP TABLE {once.TABLE}")

    assert answers == [False, True]


def test_without_a_transaction_it_is_refused(tmp_path, postgres_url):
    path = tmp_path / "shop.sqlite3"
    plain = sqlite3.connect(path, isolation_level=None)
    once.create_table(plain.execute)
    with pytest.raises(ConfigurationError, match="commits each statement by itself"):
        once.dbapi(plain, "key")
    plain.execute("BEGIN")
    assert once.dbapi(plain, "key")
    plain.execute("ROLLBACK")
    plain.close()
    with (
        psycopg.connect(postgres_url, autocommit=True) as connection,
        pytest.raises(ConfigurationError, match="commits each statement by itself"),
    ):
        once.dbapi(connection, "key")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        once.sqlalchemy(connection, "key")
    engine.dispose()


@pytest.mark.parametrize("key", ["", "x" * 256, None, 5])
def test_a_key_that_cannot_be_one_is_refused(key, tmp_path):
    connection = sqlite3.connect(tmp_path / "shop.sqlite3")
    once.create_table(connection.execute)
    with pytest.raises(ValueError, match="text of 1 to 255 characters"):
        once.dbapi(connection, key)
    connection.close()
