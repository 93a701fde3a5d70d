"""The app whose workers the tests of remote control and events talk to."""

from __future__ import annotations

import os
import time

from celery import shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.worker.control import control_command, inspect_command

from tests.apps.survival import app, record, wait_for_file

app.conf.worker_enable_remote_control = True

__all__ = ["app"]


@shared_task
def note(key):
    record("ran", key)
    return key


@shared_task
def hold(key, gate):
    """Run until the test opens the gate."""
    record("started", key)
    wait_for_file(gate)
    record("ran", key)
    return key


@shared_task
def nap(key):
    """Sleep in one long call, unless interrupted."""
    record("started", key)
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        record("interrupted", key)
        raise


@shared_task
def fail():
    raise ValueError("as asked")


@shared_task(bind=True, max_retries=1)
def retry_once(self, key):
    if self.request.retries == 0:
        raise self.retry(exc=KeyError("first"), countdown=0)
    return key


@shared_task
def reject():
    raise Reject("no thanks")


@shared_task
def ignore():
    raise Ignore


@shared_task(send_events=False)
def secret():
    return 1


@shared_task
def die():
    os.abort()


@inspect_command()
def whoami(state):
    """A user's own command."""
    return {"app": state.app.main, "hostname": state.hostname, "slots": state.consumer.pool.num_processes}


@control_command(args=[("n", int)])
def add_up(state, n=1):
    return {"ok": n + 1}


@inspect_command()
def prefetch(state):
    """As in Celery's documentation; there is no counterpart."""
    return {"prefetch_count": state.consumer.qos.value}
