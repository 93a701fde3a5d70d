"""Tasks behind circuit breakers: what they call works while a file says so."""

from __future__ import annotations

import os
from pathlib import Path

from celery.exceptions import Ignore

from celeriac import Breaker
from tests.apps.survival import app, record, wait_for_file

MAIL = Breaker("mail", failures=3, window=20, cooldown=0.5)
QUICK = Breaker("quick", failures=2, window=20, cooldown=30, ignore=(KeyError,), when_open="fail")
KEPT = Breaker("kept", rate=0.5, minimum=4, cooldown=30, only=(OSError,), when_open="dead_letter")


def works():
    return not Path(os.environ["TEST_EFFECTS"]).with_name("down").exists()


@app.task(bind=True, circuit_breaker=MAIL, max_retries=None, acks_late=True)
def send(self, key):
    """Send a mail, trying again until it is sent."""
    up = works()
    record("called" if up else "failed", key)
    if not up:
        raise self.retry(exc=ConnectionError("mail is down"), countdown=0.1)
    record("sent", key)
    return key


@app.task(circuit_breaker=QUICK)
def quick(key, how=""):
    record("called", key)
    if how == "ignored":
        raise KeyError(key)
    if how == "quiet":
        raise Ignore
    if how == "slow":
        wait_for_file("never")
    if how == "bad":
        raise OSError(key)
    return key


@app.task(circuit_breaker=KEPT)
def kept(key, how=""):
    record("called", key)
    if how == "bad":
        raise OSError(key)
    if how == "other":
        raise ValueError(key)
    return key


@app.task(circuit_breaker="kept")
def shares(key):
    return key
