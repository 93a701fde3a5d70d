"""Tasks that take long, under test."""

from __future__ import annotations

import time

from celery import shared_task

import celeriac
from celeriac.compat.long_work.errors import Cancelled
from tests.apps.survival import app, record, wait_for_file

__all__ = ["app"]


@shared_task(bind=True, acks_late=True)
def export(self, rows, seconds):
    """Go through many rows, slowly."""
    for row in self.cursor.over(range(rows), every=0.05):
        record("row", str(row))
        time.sleep(seconds)
    return rows


@shared_task(bind=True, acks_late=True, max_retries=1)
def in_two_goes(self, rows):
    """Stop half way, and go on in a second attempt."""
    start = self.cursor.load(0)
    record("began", str(start))
    for row in range(start, rows):
        self.cursor.save(row + 1, every=3600)
        if row + 1 == rows // 2:
            raise self.retry(countdown=0)
    return start


@shared_task
def report(gate):
    """Say how far it is, through the functions that a stock app has."""
    for done in range(1, 6):
        celeriac.progress(done, 10, f"step {done}")
        time.sleep(0.15)
    wait_for_file(gate)
    celeriac.progress(10, 10)


@shared_task(bind=True)
def polite(self, key):
    """Look now and then whether it is still wanted."""
    record("started", key)
    while True:
        if self.is_cancelled():
            record("asked", key)
        self.check_cancelled()
        time.sleep(0.02)


@shared_task
def deaf(key):
    """Never look."""
    record("started", key)
    while True:
        time.sleep(0.02)


@shared_task
def stubborn(key):
    """Never look, and take no exception for an answer."""
    record("started", key)
    while True:
        try:
            time.sleep(0.02)
        except Exception:
            record("caught", key)


@shared_task(bind=True)
def tidy(self, key):
    """Clean up when it is cancelled."""
    record("started", key)
    try:
        while True:
            self.check_cancelled()
            time.sleep(0.02)
    except Cancelled:
        record("tidied", key)
        raise
