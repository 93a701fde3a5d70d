"""An app whose processes die at a chosen call to a store.

The test writes files ``bomb…`` with the call, ``before`` or ``after``, and what must be among the outcomes: ``any``,
``parts`` (of a chord) or ``done`` (a chord's callback).  The process that comes there first takes the bomb and is killed.
"""

from __future__ import annotations

import functools
import os
import signal
from contextlib import suppress
from pathlib import Path

from celery import shared_task
from celery.backends.database import DatabaseBackend

from celeriac.backends.postgres import PostgresBackend
from celeriac.backends.redis import RedisBackend
from celeriac.backends.sqlite import SQLiteBackend
from celeriac.brokers.postgres import PostgresBroker
from celeriac.brokers.redis import RedisBroker
from celeriac.brokers.sqlite import SQLiteBroker
from tests.apps import survival
from tests.apps.survival import record

app = survival.app


def holds(what, argument):
    """Whether a call's argument has what the bomb waits for."""
    if what == "any":
        return bool(argument)
    if what == "parts":
        return any(outcome.chord_parts for outcome in argument)
    return any(outcome.chords_done for outcome in argument)


def explode_at(call, when, argument):
    """Die if there is a bomb for this moment."""
    for bomb in Path(os.environ["TEST_EFFECTS"]).parent.glob("bomb*"):
        with suppress(FileNotFoundError):  # somebody else has just taken it
            wanted_call, wanted_when, what = bomb.read_text().split()
            if (wanted_call, wanted_when) == (call, when) and holds(what, argument):
                bomb.rename(bomb.with_name(f"exploded-{os.getpid()}"))
                os.kill(os.getpid(), signal.SIGKILL)


def mined(owner, name, place):
    """Put the bomb's place around a method; ``place`` is that of the argument to look at."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        explode_at(name, "before", args[place])
        answer = method(self, *args, **kwargs)
        explode_at(name, "after", args[place])
        return answer

    setattr(owner, name, call)


for broker in (RedisBroker, SQLiteBroker, PostgresBroker):
    mined(broker, "turn", 1)
    mined(broker, "settle_condemned", 1)
for backend in (RedisBackend, SQLiteBackend, PostgresBackend):
    mined(backend, "store", 0)
    mined(backend, "count_parts", 0)
    mined(backend, "chord_parts", 0)
    mined(backend, "finish_chord", 0)
mined(DatabaseBackend, "_store_result", 0)


@shared_task
def early(key):
    record("ran", key)
    return key


@shared_task(acks_late=True)
def late(key):
    record("ran", key)
    return key


@shared_task(bind=True)
def retried_early(self, key):
    record(f"attempt-{self.request.retries}", key)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    record("ran", key)
    return key


@shared_task(bind=True, acks_late=True)
def retried_late(self, key):
    record(f"attempt-{self.request.retries}", key)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    record("ran", key)
    return key


@shared_task
def failing_early(key):
    record("ran", key)
    raise ValueError(key)


@shared_task(acks_late=True)
def failing_late(key):
    record("ran", key)
    raise ValueError(key)


@shared_task
def follow(value, key):
    record("followed", key)
    return value


@shared_task
def mourn(request, error, trace, key):
    record("mourned", key)
