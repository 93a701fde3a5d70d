"""The app of the tests about other stores and other ways to them."""

from __future__ import annotations

import os
import signal
import time

from celery import shared_task

from tests.apps import survival
from tests.apps.survival import record

app = survival.app


@shared_task
def note(key):
    record("ran", key)
    return key


@shared_task(acks_late=True)
def note_late(key):
    record("ran", key)
    return key


@shared_task(acks_late=True)
def nap_late(key):
    """Takes a moment, so that a flow of them outlasts what happens to the store."""
    time.sleep(0.1)
    record("napped", key)
    return key


@shared_task
def whose():
    time.sleep(0.02)
    return "celeriac"


@shared_task(acks_late=True)
def nap_long(key):
    """Long enough to be killed in it, the first time."""
    record("started", key)
    time.sleep(1.5)
    record("napped", key)
    return key


@shared_task(acks_late=True)
def doomed_late(key):
    record("started", key)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def doomed_early(key):
    record("started", key)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(acks_late=True)
def sleepy_late(key, seconds):
    record("started", key)
    time.sleep(seconds)
    return key
