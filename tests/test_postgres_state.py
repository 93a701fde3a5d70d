"""What the PostgreSQL stores make of servers, schemas and roles that are not as they should be: one line with the way out."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from celeriac import Celery
from celeriac.backends.postgres import PostgresBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.cli.main import command
from celeriac.compat import connect
from celeriac.errors import ConfigurationError, SchemaError, StoreUnavailable
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from celeriac.postgres_store import PostgresOptions, PostgresStore, schema
from tests.conformance.kits import QUEUE, messages, owner_of, part, record
from tests.helpers import free_port
from tests.server_postgres import PASSWORD, WALLED

RUNTIME_GRANTS = (
    "GRANT USAGE ON SCHEMA celeriac TO runtime",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA celeriac TO runtime",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA celeriac TO runtime",
)
"""As docs/postgres.md has them."""


@pytest.fixture(scope="module")
def roles(shared_postgres):
    shared_postgres.execute("CREATE ROLE runtime LOGIN")
    shared_postgres.execute(f"CREATE ROLE {WALLED} LOGIN PASSWORD '{PASSWORD}'")
    shared_postgres.execute("CREATE ROLE owner LOGIN")


@pytest.fixture
def database(shared_postgres):
    """A database without a schema of ours."""
    name = shared_postgres.new_database()
    yield name
    shared_postgres.drop_database(name)


def broker_at(url, **options):
    return PostgresBroker(PostgresOptions(url, **options))


def fails(url, kind, *words, **options):
    """Using it fails with one line that has these words; return the line."""
    broker = broker_at(url, **options)
    with pytest.raises(kind) as raised:
        broker.ping()
    text = str(raised.value)
    assert "\n" not in text
    assert all(word in text for word in words), text
    return text


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_named_and_not_shown(shared_postgres, roles, database):
    url = f"postgresql://{WALLED}:secret-guess@127.0.0.1:{shared_postgres.port}/{database}"
    text = fails(url, ConfigurationError, "check the URL's user and password", f"{WALLED}:**@")
    assert "secret-guess" not in text


def test_a_missing_database_is_named(shared_postgres):
    fails(shared_postgres.database_url("nowhere"), ConfigurationError, "nowhere", "createdb")


def test_a_role_that_does_not_exist_is_named(shared_postgres, database):
    fails(shared_postgres.database_url(database, "stranger"), ConfigurationError, "stranger", "create the role")


def test_a_server_that_is_not_there_is_unavailable(database):
    fails(f"postgresql://127.0.0.1:{free_port()}/{database}", StoreUnavailable, "is not available")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://h/db?sslmood=require", ["sslmood"]),
        ("postgresql://u:pa%zzword@h/db", ["percent-encoded"]),
        ("postgresql://u:secret@h:port/db", ["**"]),
    ],
)
def test_a_url_that_libpq_does_not_know_is_refused_when_the_app_starts(url, words):
    app = Celery("x", broker=url, set_as_current=False)
    with pytest.raises(ConfigurationError) as raised:
        connect.open_broker(app).ping()
    text = str(raised.value)
    assert all(word in text for word in words), text
    assert not re.search("secret|zzword", text)


@pytest.mark.parametrize("options", [{"schema": 'bad"name'}, {"schema": "Upper"}, {"synchronous_commit": "maybe"}])
def test_options_that_cannot_work_are_refused(options):
    app = Celery("x", broker="postgresql://h/db", set_as_current=False)
    app.conf.broker_transport_options = options
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        connect.open_broker(app)


def test_without_psycopg_the_pip_line_is_named():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from celeriac import Celery; from celeriac.compat import connect\n"
        "connect.open_broker(Celery('x', broker='postgresql://h/db'))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'celeriac[postgres]'" in found.stderr.splitlines()[-1]


def test_a_server_that_is_too_old_is_refused(shared_postgres, database, monkeypatch):
    monkeypatch.setattr(schema, "OLDEST_SERVER", 99)
    fails(shared_postgres.database_url(database), SchemaError, "Celeriac needs 99 or newer")


def test_a_database_that_is_not_utf8_is_refused(shared_postgres):
    shared_postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    fails(shared_postgres.database_url("latin"), ConfigurationError, "LATIN1", "UTF8")


# -- schemas and roles -------------------------------------------------------------------------------------------------


def test_a_schema_that_is_newer_than_the_code_is_refused_unless_it_says_that_older_code_may_go_on(
    shared_postgres, database
):
    url = shared_postgres.database_url(database)
    broker_at(url).ping()
    shared_postgres.execute("INSERT INTO celeriac.migrations (version, needs) VALUES (999, 1)", database)
    broker_at(url).ping()
    shared_postgres.execute("UPDATE celeriac.migrations SET needs = 999 WHERE version = 999", database)
    fails(url, SchemaError, "version 999", "upgrade")


def test_a_role_that_may_not_create_the_schema_is_told_what_to_run(shared_postgres, roles, database):
    url = shared_postgres.database_url(database, "runtime")
    fails(url, SchemaError, "does not exist", "role runtime", "migrate-store")
    fails(shared_postgres.database_url(database), SchemaError, "migrate-store", migrate=False)


def test_a_role_without_grants_is_told_so(shared_postgres, roles, database):
    broker_at(shared_postgres.database_url(database)).ping()
    fails(shared_postgres.database_url(database, "runtime"), ConfigurationError, "grant it rights", "celeriac")


def test_one_role_migrates_and_another_that_may_create_nothing_does_the_work(shared_postgres, roles, database):
    shared_postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    shared_postgres.execute(f'GRANT CREATE ON DATABASE "{database}" TO owner')
    PostgresStore(PostgresOptions(shared_postgres.database_url(database, "owner"))).migrate()
    for grant in RUNTIME_GRANTS:
        shared_postgres.execute(grant, database)
    options = PostgresOptions(shared_postgres.database_url(database, "runtime"))
    backend = PostgresBackend(options)
    broker = PostgresBroker(options, backend)

    owner = owner_of(broker)
    broker.publish(messages("a", "b"))
    first, second = broker.lease(owner, [QUEUE], 2)
    backend.start_chord("g", 2)
    backend.count_parts([part("g", 0)])
    outcome = Outcome(first, State.SUCCEEDED, (record("t"),), tuple(messages("c")), (part("g", 1),))
    (ready,) = broker.settle(owner, [outcome, Outcome(second, State.INTERRUPTED, requeue=b"b")]).ready
    broker.settle(owner, [Outcome(first, State.SUCCEEDED, chords_done=(ready.part.group_id,))])
    assert backend.wait(["t"], 5)
    assert backend.fetch(["t"]) == [record("t").payload]
    assert broker.depth([QUEUE])[0].ready == 1
    assert broker.wait([QUEUE], 1)
    assert broker.purge(QUEUE) == 1
    assert backend.expire() == 0
    broker.condemn(owner)
    assert broker.unregister(owner)


def test_many_that_start_at_once_make_one_schema(shared_postgres, database):
    url = shared_postgres.database_url(database)
    program = (
        f"from celeriac.brokers.postgres import *; from celeriac.postgres_store import *\n"
        f"PostgresBroker(PostgresOptions({url!r})).ping()"
    )
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert shared_postgres.execute("SELECT count(*) FROM celeriac.migrations", database) == [(schema.newest(),)]


def test_two_schemas_of_one_database_are_two_stores(shared_postgres, database):
    url = shared_postgres.database_url(database)
    one, other = broker_at(url, schema="one"), broker_at(url, schema="other")
    one.publish([Message(QUEUE, b"x")])
    assert (one.depth([QUEUE])[0].ready, other.depth([QUEUE])[0].ready) == (1, 0)
    assert not one.shares_store(PostgresBackend(PostgresOptions(url, schema="other")))
    broker = PostgresBroker(PostgresOptions(url, schema="one"), PostgresBackend(PostgresOptions(url, schema="one")))
    assert broker.shares_store(PostgresBackend(PostgresOptions(url, schema="one", application_name="x")))


def test_tables_that_were_dropped_are_made_anew(shared_postgres, database):
    broker = broker_at(shared_postgres.database_url(database))
    broker.ping()
    shared_postgres.execute("DROP SCHEMA celeriac CASCADE", database)
    with pytest.raises(SchemaError, match="migrate-store"):
        broker.publish([Message(QUEUE, b"x")])
    broker.publish([Message(QUEUE, b"x")])
    assert broker.depth([QUEUE])[0].ready == 1


# -- the command -------------------------------------------------------------------------------------------------------


def run(app, *words):
    return CliRunner().invoke(command(), ["-A", app, "migrate-store", *words], prog_name="celeriac")


@pytest.fixture
def module(tmp_path, monkeypatch, shared_postgres, roles, database):
    """A module with an app whose role may create nothing."""
    url = shared_postgres.database_url(database, "runtime")
    (tmp_path / "shop_on_postgres.py").write_text(
        f"import celery\napp = celery.Celery('shop', broker={url!r}, backend={url!r}, set_as_current=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "shop_on_postgres"
    sys.modules.pop("shop_on_postgres", None)


def test_the_command_migrates_as_another_role(shared_postgres, database, module):
    refused = run(module)
    assert refused.exit_code != 0
    owner = shared_postgres.database_url(database)
    first, second = run(module, "--url", owner), run(module, "--url", owner)
    assert "applied" in first.output
    assert "nothing to do" in second.output
    assert first.output.count("schema celeriac") == 1


def test_the_command_prints_sql_that_makes_the_schema(shared_postgres, database, module):
    printed = run(module, "--sql")
    assert printed.exit_code == 0
    shared_postgres.execute(printed.output, database)
    broker_at(shared_postgres.database_url(database), migrate=False).ping()


def test_the_command_says_so_when_there_is_no_postgresql(tmp_path, monkeypatch):
    (tmp_path / "shop_on_sqlite.py").write_text(
        "from celeriac import Celery\napp = Celery('x', set_as_current=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = run("shop_on_sqlite")
    assert "postgresql://" in found.output
    assert found.exit_code != 0


def test_password_of_the_url_is_in_no_text_for_people():
    options = PostgresOptions("postgresql://u:p/a@ss@host/db?password=other&sslpassword=third&x=1")
    assert options.safe_url() == "postgresql://u:**@host/db?password=**&sslpassword=**&x=1"
