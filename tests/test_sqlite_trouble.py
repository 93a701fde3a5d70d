"""The SQLite store when the file is locked, full, read-only, foreign or newer, and when processes start and fork."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing

import pytest

from celeriac.backends.sqlite import SQLiteBackend
from celeriac.brokers.sqlite import SQLiteBroker
from celeriac.errors import ConfigurationError, SchemaError, StoreError, StoreFull, StoreUnavailable
from celeriac.outcome import DeadLetter, Outcome, State
from tests.conformance.kits import QUEUE, done, messages, owner_of, places, raws, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "celeriac.sqlite3"


def log_of(path):
    return path.with_name(path.name + "-wal")


def script(text, *arguments):
    """Run Python code in a process of its own."""
    code = textwrap.dedent(text)
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_a_value_that_no_store_can_hold_is_refused_for_good_and_not_waited_for(path):
    with closing(SQLiteBroker(path)) as broker:
        owner = owner_of(broker)
        broker.publish(messages("a"))
        (delivery,) = broker.lease(owner, [QUEUE], 1)
        letter = DeadLetter("failed", "ValueError", task={"not": "a text"}, at=1.0)
        with pytest.raises(StoreError, match="trying again would not help") as error:
            broker.settle(owner, [Outcome(delivery, State.FAILED, dead=letter)])
        assert not isinstance(error.value, StoreUnavailable)
        assert [held.tag for held in broker.leased(owner)] == [delivery.tag]


# -- locked ------------------------------------------------------------------------------------------------------------


def test_a_file_that_stays_locked_is_reported_by_name(path):
    with closing(SQLiteBroker(path, timeout=0.2)) as broker:
        broker.ping()
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match=r"celeriac\.sqlite3 is locked"):
                broker.publish(messages("a"))
            assert broker.depth([QUEUE])[0].ready == 0  # reading goes on
        broker.publish(messages("a"))
        assert broker.depth([QUEUE])[0].ready == 1


def test_a_file_that_is_locked_for_a_moment_is_waited_for(path):
    with closing(SQLiteBroker(path)) as broker, ThreadPoolExecutor(1) as pool:
        broker.ping()
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            sent = pool.submit(broker.publish, messages("a"))
            assert not sent.done()
            intruder.execute("ROLLBACK")
            sent.result(10)


def test_a_thread_that_writes_for_long_is_reported_to_the_others(path):
    with closing(SQLiteBroker(path, timeout=0.1)) as broker, ThreadPoolExecutor(1) as pool:
        entered, leave = threading.Event(), threading.Event()

        def write(connection):
            entered.set()
            leave.wait(10)

        slow = pool.submit(broker.file.write, write)
        entered.wait(10)
        with pytest.raises(StoreUnavailable, match="another thread"):
            broker.publish(messages("a"))
        leave.set()
        slow.result(10)


# -- full --------------------------------------------------------------------------------------------------------------


def fill(broker, raw):
    """Publish until the store is full; return how many messages went in."""
    for sent in range(10_000):
        if refused_as_full(broker, raw):
            return sent
    raise AssertionError("it never was full")


def refused_as_full(broker, raw):
    try:
        broker.publish(messages(raw))
    except StoreFull as error:
        return "no room left in" in str(error)
    return False


def limited(connection):
    connection.execute("PRAGMA max_page_count = 100")


def test_a_full_file_refuses_and_goes_on_when_there_is_room(path):
    with closing(SQLiteBroker(path)) as broker:
        owner = owner_of(broker)
        broker.file.read(limited)
        sent = fill(broker, b"x" * 10_000)
        # The refusal cost the connection, and with it the limit of the test: there is room again.
        assert sent == broker.depth([QUEUE])[0].ready > 10
        broker.publish(messages("more"))
        deliveries = broker.lease(owner, [QUEUE], 1000)
        assert len(deliveries) == sent + 1
        broker.settle(owner, done(*deliveries))
        assert places(broker) == 0


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        with closing(SQLiteBroker(small / "celeriac.sqlite3")) as broker:
            owner = owner_of(broker)
            ballast = small / "ballast"
            ballast.write_bytes(bytes(1_000_000))
            sent = fill(broker, b"x" * 20_000)
            assert broker.depth([QUEUE])[0].ready == sent
            ballast.unlink()
            broker.publish(messages("more"))
            assert len(broker.lease(owner, [QUEUE], 1000)) == sent + 1
    finally:
        subprocess.run(["umount", str(small)], check=True)


# -- not for us --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"a photo of somebody's cat" * 100)
    with closing(SQLiteBroker(path)) as broker, pytest.raises(SchemaError, match="not an SQLite database"):
        broker.ping()
    assert path.read_bytes().startswith(b"a photo")


def test_another_programs_database_is_refused(path):
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE customers (name TEXT)")
        theirs.commit()
    with closing(SQLiteBackend(path)) as backend, pytest.raises(SchemaError, match="another program"):
        backend.fetch(["a"])


def test_a_newer_version_is_refused(path):
    with closing(SQLiteBroker(path)) as broker:
        broker.ping()
        broker.file.read(lambda connection: connection.execute("PRAGMA user_version = 99"))
        broker.close()
        with pytest.raises(SchemaError, match="version 99"):
            broker.publish(messages("a"))


def test_a_missing_directory_is_named(tmp_path):
    broker = SQLiteBroker(tmp_path / "missing" / "x.sqlite3")
    with pytest.raises(StoreUnavailable, match=r"missing/x\.sqlite3: check that its directory exists"):
        broker.ping()


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_path_that_other_processes_cannot_open_is_refused(path):
    with pytest.raises(ConfigurationError, match="file"):
        SQLiteBroker(path)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/x", "redis://localhost"])
def test_a_url_without_a_file_is_refused(url):
    with pytest.raises(ConfigurationError, match="names no file"):
        SQLiteBroker.from_url(url)


def test_a_url_may_be_relative_or_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = SQLiteBroker.from_url("sqlite:///a%20b.sqlite3")
    absolute = SQLiteBackend.from_url(f"sqlite:///{tmp_path}/a b.sqlite3")
    assert relative.shares_store(absolute)
    assert relative.url == absolute.url == f"sqlite:///{tmp_path}/a b.sqlite3"


def test_options_that_cannot_work_are_refused(path):
    with pytest.raises(ConfigurationError, match="synchronous"):
        SQLiteBroker(path, synchronous="OFF")
    with pytest.raises(ConfigurationError, match="ascend"):
        SQLiteBroker(path, priority_steps=(3, 0))


def test_two_files_are_two_stores(tmp_path):
    broker = SQLiteBroker(tmp_path / "a.sqlite3")
    assert not broker.shares_store(SQLiteBackend(tmp_path / "b.sqlite3"))
    (tmp_path / "link.sqlite3").symlink_to(tmp_path / "a.sqlite3")
    assert broker.shares_store(SQLiteBackend(tmp_path / "link.sqlite3"))


READ_ONLY = """
    import os, sys
    if os.getuid() == 0:
        import celeriac.brokers.sqlite, celeriac.message
        os.setuid(65534)
    from celeriac.brokers.sqlite import SQLiteBroker
    from celeriac.errors import StoreUnavailable
    from celeriac.message import Message
    broker = SQLiteBroker(sys.argv[1])
    try:
        broker.publish([Message("q", b"a")])
    except StoreUnavailable as error:
        print(error)
    broker.close()
"""


def test_a_file_that_may_not_be_written_is_reported(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent != parent.parent and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    path = folder / "celeriac.sqlite3"
    with closing(SQLiteBroker(path)) as broker:
        broker.ping()
    path.chmod(0o444)
    folder.chmod(0o555)
    answer = script(READ_ONLY, path)
    folder.chmod(0o755)
    assert answer.returncode == 0, answer.stderr
    assert "read-only" in answer.stdout or "cannot open" in answer.stdout


# -- many processes ----------------------------------------------------------------------------------------------------


def start_and_send(path):
    with closing(SQLiteBroker(path)) as broker:
        broker.publish(messages(*(str(n) for n in range(10))))
    return os.getpid()


def test_many_processes_may_start_at_once_on_a_new_file(path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(8, mp_context=context) as pool:
        list(pool.map(start_and_send, [path] * 16))
    with closing(SQLiteBroker(path)) as broker:
        assert broker.depth([QUEUE])[0].ready == 160


def test_a_child_of_a_fork_makes_connections_of_its_own(path):
    with closing(SQLiteBroker(path)) as broker:
        broker.publish(messages("from the parent"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                broker.publish(messages("from the child"))
                broker.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        broker.publish(messages("from the parent again"))
        wanted = [b"from the parent", b"from the child", b"from the parent again"]
        assert raws(broker.lease(owner_of(broker), [QUEUE], 10)) == wanted


HOG = """
    import sys, time
    from celeriac.brokers.sqlite import SQLiteBroker
    from celeriac.message import Message
    broker = SQLiteBroker(sys.argv[1])
    longest, count, end = 0.0, 0, time.monotonic() + 3.0
    while time.monotonic() < end:
        began = time.monotonic()
        broker.publish([Message("q", b"a")])
        longest, count = max(longest, time.monotonic() - began), count + 1
    print(count, longest)
"""


def test_no_process_starves_when_many_write_all_the_time(path):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: script(HOG, path), range(6)))
    measured = [tuple(map(float, answer.stdout.split())) for answer in answers]
    counts, longest = zip(*measured, strict=True)
    assert max(longest) < 2.0, measured
    assert min(counts) * 10 > max(counts), measured


# -- cost --------------------------------------------------------------------------------------------------------------


def test_waiting_costs_next_to_nothing(path):
    with closing(SQLiteBroker(path)) as broker:
        broker.ping()
        used = time.process_time()
        assert not broker.wait([QUEUE], 1.0)
        assert time.process_time() - used < 0.02


def test_waiting_works_without_inotify_too(path, monkeypatch):
    monkeypatch.setattr("celeriac.sqlite_store.bell._LIBC", None)
    with closing(SQLiteBroker(path)) as broker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(broker.wait, [QUEUE], 20.0)
        began = time.monotonic()
        broker.publish(messages("a"))
        assert answer.result(30)
        assert time.monotonic() - began < 1
        assert not broker.wait(["other"], 0.05)


def test_what_a_killed_publisher_did_not_announce_is_found(path):
    with closing(SQLiteBroker(path)) as broker, closing(SQLiteBroker(path)) as silent, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(broker.wait, [QUEUE], 20.0)
        silent.file.write(lambda c: c.execute("INSERT INTO ready (queue, priority, id) VALUES (?, 0, 1)", (QUEUE,)))
        assert answer.result(30)


def test_the_file_does_not_grow_with_what_passes_through(path):
    with closing(SQLiteBroker(path)) as broker:
        owner = owner_of(broker)
        for _ in range(40):
            broker.publish(messages(*([b"x" * 2000] * 500)))
            broker.settle(owner, done(*broker.lease(owner, [QUEUE], 500)))
        log = log_of(path).stat().st_size
    # 40 MB went through, never more than 1 MB at once.
    assert path.stat().st_size < 5_000_000
    assert log < 64 * 1024 * 1024


def test_the_write_ahead_log_is_bounded_although_readers_keep_coming(path, monkeypatch):
    monkeypatch.setattr("celeriac.sqlite_store.store._WAL_LIMIT", 1_000_000)
    with closing(SQLiteBroker(path)) as broker, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        broker.ping()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ready").fetchall()
        for _ in range(70):
            broker.publish(messages(b"x" * 50_000))
        assert log_of(path).stat().st_size > 1_000_000  # held open by the reader
        reader.execute("COMMIT")
        for _ in range(70):
            broker.publish(messages("a"))
        assert log_of(path).stat().st_size < 1_000_000


def test_results_are_kept_without_waiting_for_the_disk_when_asked(path):
    with closing(SQLiteBackend(path, synchronous="NORMAL")) as backend:
        backend.store([record("a")])
        assert backend.fetch(["a"]) == [record("a").payload]
        level = backend.file.read(lambda c: c.execute("PRAGMA synchronous").fetchone())
        assert level == (1,)
