"""Idempotent and unique tasks, declared alike in workers and in the tests' own clients and producers."""

from __future__ import annotations

import os

from celery.exceptions import Ignore, Reject

from celeriac import Celery
from tests.apps.survival import app as survival_app
from tests.apps.survival import record, wait_for_file


def declare(app: Celery) -> dict:  # noqa: C901, PLR0915 - a list of tasks
    """Declare the tasks; return them by their short names."""

    def task(**options):
        return lambda body: app.task(name=f"tests.apps.once.{body.__name__}", shared=False, **options)(body)

    @task(unique="until_started")
    def queued(key):
        record("ran", key)
        return key

    @task(unique=True, acks_late=True)
    def whole(key, gate=None):
        record("started", key)
        if gate:
            wait_for_file(gate)
        record("ran", key)
        return key

    @task(unique="until_done", acks_late=True, bind=True, max_retries=1, unique_by=["key"])
    def ends(self, key, how):
        """End as told."""
        record("started", key)
        if how == "fail":
            raise ValueError(key)
        if how == "retry":
            raise self.retry(countdown=0.2)
        if how == "ignore":
            raise Ignore
        if how == "reject":
            raise Reject(key)
        if how == "crash":
            os.kill(os.getpid(), 9)
        if how == "slow":
            wait_for_file("never")
        return key

    @task(unique_for=1.0, unique_by="{key}")
    def windowed(key, other=None):
        record("ran", key)

    @task(unique="until_started", unique_by="key", unique_conflict="replace")
    def replaced(key, text):
        record("ran", f"{key}={text}")
        return text

    @task(unique="until_started", unique_by="{key}", unique_conflict="debounce", unique_delay=1.0, acks_late=True)
    def debounced(key, text, gate=None):
        record("started", f"{key}={text}")
        if gate:
            wait_for_file(gate)
        record("ran", f"{key}={text}")
        return text

    @task(unique=True, unique_conflict="raise")
    def strict(key):
        record("ran", key)

    @task(unique=True)
    def early(key, gate=None):
        record("started", key)
        if gate:
            wait_for_file(gate)
        return key

    @task()
    def plain(value=None):
        record("plain", "-")
        return value

    @task(idempotency_key="order:{order}", acks_late=True)
    def charge(order, gate=None):
        record("started", order)
        if gate:
            wait_for_file(gate)
        record("charged", order)
        return {"order": order}

    @task(idempotency_key=lambda order, gate: order, idempotency_conflict="skip")
    def skipping(order, gate):
        record("started", order)
        wait_for_file(gate)
        return "first"

    @task(idempotency_key=["order"], idempotency_conflict="fail", idempotency_ttl=0.5)
    def failing(order, gate=None):
        record("started", order)
        if gate:
            wait_for_file(gate)
        return "first"

    @task(idempotency_key="{order}", bind=True, acks_late=True, autoretry_for=(OSError,), retry_backoff=False,
          default_retry_delay=0.1, max_retries=3)  # fmt: skip
    def unsteady(self, order, how="once", gate=None):
        """Fail once, in one way or another, and then succeed."""
        record("started", order)
        if len(_starts(order)) > 1:
            return "good"
        if how == "retry":
            raise OSError(order)
        if how == "fail":
            raise ValueError(order)
        if how == "ignore":
            raise Ignore
        if how == "crash":
            os.kill(os.getpid(), 9)
        if how == "slow":
            wait_for_file(gate)
        return "good"

    @task(idempotency_key="{order}")
    def bulky(order):
        record("started", order)
        return "x" * 100_000

    @task(idempotency_key="order:{order.id}")
    def nested(order):
        record("started", str(order["id"]))

    @task(idempotency_key=lambda order: order["id"])
    def torn(order): ...

    return {name: made for name, made in locals().items() if name not in {"app", "task"}}


def _starts(order):
    with open(os.environ["TEST_EFFECTS"]) as effects:  # noqa: PTH123 - a test app
        return [line for line in effects if line.startswith(f"started {order} ")]


app = survival_app
declare(app)
