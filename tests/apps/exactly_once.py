"""Has an effect in a transaction with a key, and is killed before and after each of its statements in turn.

Usage: ``exactly_once.py KIND PLACE``.  For each point it forks a process that is killed there and then one that is not, as a queue
would run the task again, and prints how often each point's effect is there, as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import sys
from urllib.parse import urlsplit

import django
import psycopg
import sqlalchemy
import sqlalchemy.orm
from django.conf import settings
from django.db import connection as django_connection
from django.db import transaction

from celeriac.integrations import once

TABLES = (once.CREATE_TABLE, "CREATE TABLE IF NOT EXISTS effects (who VARCHAR(50), amount INTEGER)")
INSERT = "INSERT INTO effects (who, amount) VALUES ('{who}', 1)"
UPDATE = "UPDATE effects SET amount = amount + 1 WHERE who = '{who}'"
COUNT = "SELECT who, count(*), sum(amount) FROM effects GROUP BY who"


class Bomb:
    """Kills this process when a point is passed."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def with_sqlite3(place, who, bomb):
    connection = sqlite3.connect(place)
    connection.set_trace_callback(bomb)
    if once.dbapi(connection, who):
        connection.execute(INSERT.format(who=who))
        bomb()
        connection.execute(UPDATE.format(who=who))
    connection.commit()
    bomb()


def with_psycopg(place, who, bomb):
    class Cursor(psycopg.Cursor):
        def execute(self, *args, **kwargs):
            bomb()
            answer = super().execute(*args, **kwargs)
            bomb()
            return answer

    with psycopg.connect(place, cursor_factory=Cursor) as connection:
        if once.dbapi(connection, who):
            connection.execute(INSERT.format(who=who))
            connection.execute(UPDATE.format(who=who))
        bomb()
        connection.commit()
        bomb()


def with_sqlalchemy(place, who, bomb):
    event, text = sqlalchemy.event, sqlalchemy.text
    engine = sqlalchemy.create_engine(place)
    for name in ("before_cursor_execute", "after_cursor_execute"):
        event.listen(engine, name, lambda *_: bomb())
    event.listen(engine, "commit", bomb)
    with sqlalchemy.orm.Session(engine) as session, session.begin():
        if once.sqlalchemy(session, who):
            session.execute(text(INSERT.format(who=who)))
            session.execute(text(UPDATE.format(who=who)))
    bomb()


def bombed(bomb):
    """Calls something, with a point before and one after it."""

    def around(call, *args):
        bomb()
        answer = call(*args)
        bomb()
        return answer

    return around


def with_django(place, who, bomb):
    django_connection.ensure_connection()
    raw = django_connection.connection
    if isinstance(raw, sqlite3.Connection):
        raw.set_trace_callback(bomb)
    else:
        django_connection.execute_wrappers.append(bombed(bomb))
        raw.commit = functools.partial(bombed(bomb), raw.commit)
    with transaction.atomic():
        if once.django(who):
            with django_connection.cursor() as cursor:
                cursor.execute(INSERT.format(who=who))
                bomb()
                cursor.execute(UPDATE.format(who=who))
    bomb()


KINDS = {"sqlite3": with_sqlite3, "psycopg": with_psycopg, "sqlalchemy": with_sqlalchemy, "django": with_django}


def run(kind, place, who, at):
    """Run it in a child; return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            KINDS[kind](place, who, Bomb(at))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def connect(kind, place):
    if place.startswith("postgresql"):
        return psycopg.connect(place.replace("+psycopg", ""), autocommit=True)
    return sqlite3.connect(place.removeprefix("sqlite:///"), isolation_level=None)


def django_database(place):
    if not place.startswith("postgresql"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": place}
    url = urlsplit(place)
    where = {"NAME": url.path[1:], "HOST": url.hostname, "PORT": url.port, "USER": url.username}
    return {"ENGINE": "django.db.backends.postgresql", "PASSWORD": url.password or "", **where}


def main():
    kind, place = sys.argv[1:]
    if kind == "django":
        settings.configure(DATABASES={"default": django_database(place)})
        django.setup()
    connection = connect(kind, place)
    for statement in TABLES:
        connection.execute(statement)
    connection.close()
    point, kills = 1, 0
    while run(kind, place, f"p{point}", point):
        kills += 1
        assert not run(kind, place, f"p{point}", 0)
        point += 1
    connection = connect(kind, place)
    sys.stdout.write(json.dumps({"kills": kills, "effects": connection.execute(COUNT).fetchall()}))
    for table in (once.TABLE, "effects"):
        connection.execute(f"DROP TABLE {table}")
    connection.close()


if __name__ == "__main__":
    main()
