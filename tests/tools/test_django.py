"""A Django project with django-celery-results and django-celery-beat on a Celeriac worker."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.servers import RedisServer, ServerMissing
from tests.tools.conftest import running
from tests.workers import ROOT, Worker

PROJECT = "tests.apps.django_shop"
PREAMBLE = f"""
import json
import django
django.setup()
from django.db import transaction
from celery import chain, chord, group
from django_celery_results.models import GroupResult, TaskResult
from {PROJECT} import celery_app
from {PROJECT}.orders import tasks
from {PROJECT}.orders.models import Order
"""


class Shop:
    """The project on servers of its own."""

    def __init__(self, directory: Path, broker: str) -> None:
        self.directory = directory
        self.broker = broker
        self.env = {
            "TEST_BROKER": broker,
            "TEST_DATABASE": str(directory / "shop.sqlite3"),
            "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, program: str, **env: str):
        """Run a program in the project; return what it assigns to ``answer``."""
        code = f"{PREAMBLE}{program}\nprint(json.dumps(answer))"
        found = self._python("-c", code, **env)
        return json.loads(found.splitlines()[-1])

    def manage(self, *words: str) -> str:
        """Run a command of Django's."""
        return self._python("-m", "django", *words)

    def _python(self, *words: str, **env: str) -> str:
        found = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
            env={**os.environ, **self.env, **env},
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return found.stdout

    def worker(self, **options) -> Worker:
        return Worker(self.directory, self.broker, app=PROJECT, env={**self.env, **options.pop("env", {})}, **options)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    for package in ("django", "django_celery_results", "django_celery_beat"):
        if importlib.util.find_spec(package) is None:
            raise ServerMissing(f"no {package} here; make install brings it")
    with RedisServer() as server:
        shop = Shop(tmp_path_factory.mktemp("shop"), server.url)
        shop.manage("migrate", "--run-syncdb", "-v0")
        yield shop


@pytest.fixture(scope="module")
def worker(shop):
    with shop.worker() as worker:
        yield worker
    assert "Signal handler" not in worker.log()
    assert "SynchronousOnlyOperation" not in worker.log()


RESULTS = """
sent = {
    "add": tasks.add.delay(1, 2),
    "again": tasks.again.delay(),
    "fail": tasks.fail.delay(),
    "chain": chain(tasks.add.s(1), tasks.add.s(2))(),
    "chord": chord([tasks.add.s(1), tasks.add.s(2)])(tasks.total.s()),
    "count": tasks.count.delay(),
}
values = {name: result.get(timeout=20, propagate=False) for name, result in sent.items()}
rows = {name: TaskResult.objects.get(task_id=result.id) for name, result in sent.items()}
members = group(tasks.add.s(n) for n in range(3))()
members.save()
answer = {
    "values": {name: repr(value) for name, value in values.items()},
    "rows": {name: [row.status, (row.task_name or "NONE").rpartition(".")[2], row.worker] for name, row in rows.items()},
    "traceback": rows["fail"].traceback,
    "group": [members.get(timeout=20), GroupResult.objects.filter(group_id=members.id).count()],
}
"""


def test_results_of_all_kinds_lie_in_the_database_of_django(shop, worker):
    answer = shop.run(RESULTS)

    assert answer["values"] == {
        "add": "3", "again": "1", "fail": "ValueError('as asked')", "chain": "3", "chord": "3", "count": "0",
    }  # fmt: skip
    assert answer["rows"]["add"] == ["SUCCESS", "add", "one@test"]
    assert answer["rows"]["again"] == ["SUCCESS", "again", "one@test"]
    assert answer["rows"]["fail"] == ["FAILURE", "fail", "one@test"]
    assert answer["rows"]["chord"] == ["SUCCESS", "total", "one@test"]
    assert 'ValueError("as asked")' in answer["traceback"]
    assert answer["group"] == [[0, 1, 2], 1]


ON_COMMIT = """
class Abort(Exception):
    pass

try:
    with transaction.atomic():
        tasks.pay.delay_on_commit(Order.objects.create(name="never").pk)
        raise Abort
except Abort:
    pass
before = TaskResult.objects.filter(task_name__endswith="pay").count()
with transaction.atomic():
    order = Order.objects.create(name="book")
    tasks.pay.delay_on_commit(order.pk)
    tasks.add.apply_async_on_commit((1,), countdown=0)
import time
while not Order.objects.get(pk=order.pk).is_paid:
    time.sleep(0.02)
answer = [before, type(celery_app).__module__, celery_app.Task.delay_on_commit.__qualname__]
"""


@pytest.mark.parametrize("kind", ["celery", "celeriac"])
def test_a_task_is_sent_when_its_transaction_commits(shop, worker, kind):
    before, module, method = shop.run(ON_COMMIT, TEST_KIND=kind)

    assert before == {"celery": 0, "celeriac": 1}[kind]  # what the one before has left
    assert module.startswith(kind)
    assert method == "DjangoTask.delay_on_commit"


def test_database_connections_end_with_their_task(shop, worker):
    program = "answer = [tasks.has_connection.delay().get(timeout=20) for _ in range(3)]"

    assert shop.run(program) == [False, False, False]


BROKEN = """
sent = [tasks.break_connection.delay(), tasks.break_connection.delay("as asked"), tasks.add.delay(1, 2)]
answer = [repr(each.get(timeout=20, propagate=False)) for each in sent]
"""


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio"])
def test_a_result_is_stored_although_the_task_left_a_broken_connection(shop, pool):
    with shop.worker(pool=pool, name=f"broken-{pool}", concurrency=1):
        unstored, failed, after = shop.run(BROKEN)

    assert "closed database" in unstored
    assert failed == "ValueError('as asked')"
    assert after == "3"


def test_a_late_task_whose_process_is_killed_in_a_transaction_runs_again(shop, tmp_path):
    marker = tmp_path / "marker"
    with shop.worker(name="killed") as worker:
        send = f'answer = tasks.pay_slowly.delay(Order.objects.create(name="late").pk, {str(marker)!r}).id'
        task_id = shop.run(send)
        os.kill(int(wait_until(lambda: marker.exists() and marker.read_text(), 20, worker.log)), signal.SIGKILL)

        assert shop.run(f"answer = tasks.pay_slowly.AsyncResult({task_id!r}).get(timeout=20)") == "late paid"


def test_coroutine_tasks_use_models_and_store_results_in_any_pool(shop):
    program = "answer = [each.get(timeout=20) for each in [tasks.count.delay() for _ in range(5)]]"
    for pool in ("asyncio", "threads"):
        with shop.worker(pool=pool, name=pool) as worker:
            assert len(set(shop.run(program))) == 1
            assert worker.stop() == 0
            assert "SynchronousOnlyOperation" not in worker.log()


def test_models_of_tasks_are_checked_and_tasks_discovered(shop, worker):
    names = set(re.findall(rf"{re.escape(PROJECT)}\.orders\.tasks\.(\w+)", worker.log().partition("ready")[0]))

    assert {"pay", "add", "total", "count"} <= names


SCHEDULE = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
PeriodicTask.objects.create(interval=every, name="adding", task=tasks.add.name, args="[40, 2]")
answer = True
"""

RUNS = """
from django_celery_beat.models import PeriodicTask
due = PeriodicTask.objects.get(name="adding")
made = TaskResult.objects.filter(periodic_task_name="adding", status="SUCCESS")
answer = [made.count(), due.total_run_count, sorted({row.result for row in made})]
"""


def test_the_database_scheduler_of_django_celery_beat_sends_what_is_due(shop, worker):
    shop.run(SCHEDULE)
    beat = [sys.executable, "-m", "celeriac.cli.main", "-A", PROJECT, "beat", "-S", "django", "--loglevel=INFO"]

    with running([*beat, f"--pidfile={shop.directory}/beat.pid"], shop.directory / "beat.log", **shop.env) as log:
        wait_until(lambda: shop.run(RUNS)[0] >= 2, 30, log.output)

    runs, counted, results = shop.run(RUNS)  # the scheduler has written its counts, because it has ended
    assert results == ["42"]
    assert counted >= runs >= 2


def test_a_worker_of_django_drains_on_sigterm(shop):
    with shop.worker(name="leaving") as worker:
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "Traceback" not in worker.log()
