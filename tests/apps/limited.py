"""An app whose tasks are limited in the whole cluster."""

from __future__ import annotations

import json
import os
import time

from celeriac import Celery, Limit
from tests.apps.survival import record, wait_for_file

app = Celery(
    "limited",
    broker=os.environ.get("TEST_BROKER", "sqlite:///unused.sqlite3"),
    backend=os.environ.get("TEST_BACKEND"),
)
app.conf.update(
    worker_enable_remote_control=False,
    task_ignore_result=True,
    celeriac_queue_limits={"slow": Limit(concurrency=1)},
)
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))
NAME = "tests.apps.limited"


@app.task
def free(key):
    record("ran", key)


@app.task(limits=[Limit("100/s")])
def hundred(key):
    record("ran", key)


@app.task(rate_limit="1/m", rate_limit_scope="cluster")
def rare(key):
    record("ran", key)


@app.task(limits=[Limit("20/s", key="{tenant}")])
def per_tenant(key, tenant):
    record("ran", key)


@app.task(limits=[Limit("40/s", name="mail")])
def mail(key, tenant=""):
    record("ran", key)


@app.task(limits=[Limit("50/s", name="shared"), Limit(concurrency=9, key="{tenant}")])
def fair(key, tenant):
    record("ran", key)


@app.task(limits=[Limit(concurrency=2, key="{tenant}")], acks_late=True)
def two(key, tenant, gate=None, seconds=0.0):
    record("started", f"{tenant}/{key}")
    if gate:
        wait_for_file(gate)
    time.sleep(seconds)
    record("ran", f"{tenant}/{key}")


@app.task(limits=Limit("10/s", weight="{pages}", burst=10))
def printing(key, pages):
    record("ran", key)


@app.task
def plain(key, seconds=0.05):
    record("started", key)
    time.sleep(seconds)
    record("ran", key)
