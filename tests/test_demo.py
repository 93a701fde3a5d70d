"""The reference system, as a user meets it: ``python -m demo`` and what it prints, leaves on disk and exits with."""

from __future__ import annotations

import json
import mailbox
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from demo.audit import count_mails, picture_problems
from demo.crash import descendants
from demo.journal import Entry, JournalWriter
from demo.orders import SIZES, make_order
from demo.photos import painted_photos
from demo.progress import RunProgress
from demo.report import percentile
from demo.settings import ShopSettings
from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
WIDE = {**os.environ, "COLUMNS": "160"}


def run_demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *map(str, arguments)],
        cwd=ROOT,
        env=WIDE,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def figure(output: str, row: str) -> str:
    found = re.search(rf"│ {row} +│ +([^│]+?) │", output)
    assert found, f"no row {row!r} in:\n{output}"
    return found[1]


@pytest.fixture
def shop(tmp_path) -> ShopSettings:
    shop = ShopSettings(home=tmp_path, broker="", backend="", key_prefix="")
    for folder in (shop.uploads, shop.orders, shop.pictures / "SHOP-00001", shop.receipts):
        folder.mkdir(parents=True)
    return shop


@pytest.fixture
def open_shop(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A demo that serves, until it is stopped by the test."""
    log = tmp_path / "output.txt"
    with log.open("w") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "demo", "--orders", "0", "--serve", "--output", str(tmp_path / "shop")],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "Still open" in log.read_text() or demo.poll() is not None, START_SECONDS, log.read_text)
        assert demo.poll() is None, log.read_text()
        yield demo
    finally:
        demo.terminate()
        demo.wait(20)


# -- whole runs ----------------------------------------------------------------------------------------------------


def test_every_order_gets_its_pictures_and_exactly_one_mail_on_the_embedded_default(tmp_path):
    home = tmp_path / "shop"

    ended = run_demo("--orders", "15", "--output", home)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert figure(ended.stdout, "orders") == "15"
    assert figure(ended.stdout, "tasks") == "75"
    assert figure(ended.stdout, "lost") == "0"
    assert int(figure(ended.stdout, "retries")) > 0
    assert int(figure(ended.stdout, "rescued")) >= 1
    patterns = {
        row: figure(ended.stdout, row) for row in ("refused", "posted twice", "dead-lettered", "429", "breaker")
    }
    assert patterns == {
        "refused": "3", "posted twice": "1", "dead-lettered": "1", "429": "10", "breaker": "opened, closed",
    }  # fmt: skip
    assert "order.items.0.quantity" in ended.stdout
    assert "ms" in figure(ended.stdout, "send to start")
    assert sorted(count_mails(home / "mailbox")) == [f"SHOP-{number:05}" for number in range(1, 16)]
    assert len(list((home / "pictures").glob("*/*.jpg"))) == 15 * len(SIZES)


@pytest.mark.parametrize(
    ("store", "results"),
    [("redis", None), ("postgres", None), ("rabbitmq", "redis"), ("rabbitmq", "postgres"), ("redis", "postgres")],
)
def test_the_same_runs_on_servers_with_the_users_own_photos_and_names_a_broken_one(request, tmp_path, store, results):
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (300, 400), "teal").save(own / "small.png")
    Image.new("CMYK", (2000, 900), "teal").save(own / "wide.jpg")
    (own / "broken.jpg").write_bytes(b"\xff\xd8 no photo")

    ended = run_demo(
        "--orders",
        "8",
        "--images",
        own,
        "--broker",
        request.getfixturevalue(f"{store}_url"),
        *(["--backend", request.getfixturevalue(f"{results}_url")] if results else []),
        "--output",
        tmp_path / "shop",
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"skipped.*broken\.jpg", ended.stdout)
    assert figure(ended.stdout, "lost") == "0"
    assert figure(ended.stdout, "breaker") == "opened, closed"
    assert figure(ended.stdout, "429") == "10"
    with Image.open(tmp_path / "shop/pictures/SHOP-00001/thumb.jpg") as thumb:
        assert max(thumb.size) == SIZES["thumb"]


def test_a_second_run_in_the_same_folder_starts_afresh(tmp_path):
    first, second = (run_demo("--orders", "2", "--calm", "--output", tmp_path / "shop") for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    assert figure(second.stdout, "mails") == "2"


def test_what_is_missing_is_named_and_the_exit_status_says_so(tmp_path):
    home = tmp_path / "shop"
    command = [sys.executable, "-m", "demo", "--orders", "30", "--calm", "--output", str(home)]
    with subprocess.Popen(command, cwd=ROOT, env=WIDE, stdout=subprocess.PIPE, text=True) as demo:
        wait_until(lambda: list(home.glob("receipts/*.html")) or demo.poll() is not None, START_SECONDS)
        for photo in (home / "uploads").iterdir():
            photo.write_bytes(b"no photo any more")
        output, _ = demo.communicate(timeout=100)

    assert demo.returncode == 1, output
    assert int(figure(output, "lost")) > 0
    assert re.search(r"SHOP-000\d\d: picture large is missing", output)
    assert re.search(r"SHOP-000\d\d: resize \w+ ended as FAILURE", output)
    assert "celeriac -A demo.shop dead list" in output


# -- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_demo(open_shop, number):
    children = descendants(open_shop.pid)
    assert len(children) >= 5

    open_shop.send_signal(number)

    open_shop.wait(20)
    wait_until(lambda: not any(_runs(pid) for pid in children), 15, lambda: f"still there: {children}")


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- friendly errors -----------------------------------------------------------------------------------------------


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    precious = tmp_path / "orders" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")

    ended = run_demo("--orders", "1", "--output", tmp_path)

    assert ended.returncode == 1
    assert "was not made by this demo" in ended.stderr
    assert precious.read_text() == "mine"


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_demo("--orders", "1", "--output", tmp_path, "--port", str(port))

    assert ended.returncode == 1
    assert f"Cannot listen on port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broker_that_is_not_there_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    ended = run_demo("--orders", "1", "--output", tmp_path, "--broker", f"redis://:secret@127.0.0.1:{port}/0")

    assert ended.returncode == 1
    assert f"Nothing answers at redis://127.0.0.1:{port}" in ended.stderr
    assert "secret" not in ended.stderr


def test_two_demos_do_not_share_a_folder(open_shop, tmp_path):
    ended = run_demo("--orders", "1", "--output", tmp_path / "shop")

    assert ended.returncode == 1
    assert "Another demo is running" in ended.stderr


# -- the audit -----------------------------------------------------------------------------------------------------


def test_the_audit_names_a_missing_a_broken_and_a_wrong_picture(shop):
    Image.new("RGB", (1600, 1200)).save(shop.uploads / "photo.jpeg")
    (shop.orders / "SHOP-00001.json").write_text(json.dumps({"photo": "photo.jpeg"}))
    pictures = shop.pictures / "SHOP-00001"
    (pictures / "large.jpg").write_bytes(b"\xff\xd8")
    Image.new("RGB", (512, 512)).save(pictures / "medium.jpg")

    large, medium, thumb = picture_problems(shop, "SHOP-00001")

    assert "large is broken" in large
    assert "medium has the wrong size" in medium
    assert "thumb is missing" in thumb


def test_the_audit_counts_each_mail_of_an_order(shop):
    box = mailbox.Maildir(shop.mailbox)
    for order in ("SHOP-00001", "SHOP-00002", "SHOP-00001"):
        box.add(f"Message-ID: <{order}@shop.example.com>\n\nhello\n")

    assert count_mails(shop.mailbox) == {"SHOP-00001": 2, "SHOP-00002": 1}


# -- the figures ---------------------------------------------------------------------------------------------------


def test_a_body_that_starts_twice_in_one_attempt_is_a_rescue_and_a_retry_is_none(shop):
    journal = JournalWriter(shop.journal)
    common = {"order_id": "SHOP-00001", "pid": 1}
    journal.write(Entry("start", "resize", "a", at=1.0, sent=0.5, **common))
    journal.write(Entry("start", "resize", "a", at=2.0, sent=0.5, redelivered=True, **common))
    journal.write(Entry("end", "resize", "a", at=3.0, state="SUCCESS", **common))
    journal.write(Entry("start", "mail_receipt", "b", at=3.0, sent=2.9, **common))
    journal.write(Entry("start", "mail_receipt", "b", at=4.0, sent=3.0, retries=1, **common))
    journal.write(Entry("end", "mail_receipt", "b", at=4.1, state="RETRY", **common))
    journal.write(Entry("end", "mail_receipt", "b", at=5.0, retries=1, state="SUCCESS", **common))

    progress = RunProgress(shop.journal)
    progress.update()

    assert [rescue.again.at for rescue in progress.rescues] == [2.0]
    assert progress.retries == {"mail_receipt": 1}
    assert progress.waits == pytest.approx([0.5, 0.1])
    assert progress.mailed == {"SHOP-00001": 5.0}
    assert progress.running == {}


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (99, 4), (100, 4), (1, 1)])
def test_percentiles_are_values_that_occurred(percent, value):
    assert percentile([4, 1, 3, 2], percent) == value


def test_the_same_seed_paints_the_same_photos_and_makes_the_same_orders(tmp_path):
    one, other, third = (next(painted_photos(tmp_path / str(n), seed)) for n, seed in enumerate((1, 1, 2)))

    assert one.read_bytes() == other.read_bytes() != third.read_bytes()
    assert make_order(1, 7, ["a"]) == make_order(1, 7, ["a"]) != make_order(2, 7, ["a"])
