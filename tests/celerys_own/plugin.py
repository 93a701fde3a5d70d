"""Pytest plugin for Celery's own suites: a worker for its integration tests, containers for its smoke tests, and what may fail."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery.contrib.pytest
import pytest
from celery.utils.nodenames import anon_nodename

from tests.celerys_own import containers
from tests.celerys_own.processes import PROGRAM, Worker
from tests.server_rabbitmq import RabbitServer
from tests.servers import RedisServer

APP = """
from celery import Celery
app = Celery("integration", include=["t.integration.tasks"])
app.conf.update({conf!r})
app.set_current()
app.set_default()
from t.integration.tasks import ClassBasedAutoRetryTask
app.register_task(ClassBasedAutoRetryTask())
"""

SETTINGS = ("broker_url", "result_backend", "result_extended", "task_create_missing_queues")

containers.install()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Have servers for the integration tests, unless ``TEST_BROKER`` and ``TEST_BACKEND`` name others."""
    if "TEST_BROKER" in os.environ or not any("integration" in argument for argument in args):
        return
    server = RedisServer().start()
    early_config.add_cleanup(server.close)
    broker = server.url
    if os.environ.get("BROKER") == "rabbitmq":
        rabbit = RabbitServer().start()
        early_config.add_cleanup(rabbit.close)
        broker = rabbit.url
    os.environ.update(TEST_BROKER=broker, TEST_BACKEND=server.url, REDIS_HOST="127.0.0.1", REDIS_PORT=str(server.port))


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Any, celery_includes: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker in a process of its own, in place of one in the tests' process."""
    app = celery_session_app
    for module in celery_includes:
        app.loader.import_task_module(module)
    app.register_task(sys.modules["t.integration.tasks"].ClassBasedAutoRetryTask())
    directory = tmp_path_factory.mktemp("integration")
    (directory / "app.py").write_text(APP.format(conf={name: app.conf[name] for name in SETTINGS}))
    log = Path(os.environ.get("WORKER_LOG", directory / "log"))
    words = ["celery", "-A", "app", "worker", "-l", "INFO", "-c", "1", "-P", "prefork", "-n", anon_nodename()]
    worker = Worker(directory, log, {"C_FORCE_ROOT": "1"}, words)
    worker.start("integration")
    yield worker
    worker.end()


celery.contrib.pytest.celery_session_worker = celery_session_worker
"""Where the suite's ``conftest.py`` takes it from."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A container begins with an empty /tmp."""
    if "unreachable_result_backend" in item.nodeid:
        Path("/tmp/kill_child_process_once").unlink(missing_ok=True)  # noqa: S108 - the suite's own place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is expected to fail on a worker of ours."""
    if PROGRAM.name == "celery":
        return
    expected = list(_expected())
    on_rabbitmq = os.environ.get("TEST_BROKER", "").startswith("amqp")
    for item in items:
        if on_rabbitmq and item.name.startswith("test_expired"):
            item.add_marker(pytest.mark.skip("waits for ever: the server drops what expires in its queue"))
        for pattern, reason in expected:
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=False))
                break


def _expected() -> Iterator[tuple[str, str]]:
    for line in Path(__file__).with_name("differences.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, reason = line.split(" | ", 1)
            yield pattern.strip(), reason.strip()
