"""An app that writes down every signal it gets, for workers of either kind."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import celery
from celery import signals
from celery.exceptions import Reject
from celery.utils.dispatch import Signal

SILENT = {"setup_logging"}
"""A receiver of it would take logging over."""


def listen(name, signal):
    def on_signal(sender=None, **arguments):
        given = sorted(set(arguments) - {"signal"})
        line = json.dumps({"signal": name, "arguments": given, "sender": type(sender).__name__})
        file = os.open(os.environ["TEST_SIGNALS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    signal.connect(on_signal, weak=False)


for _name, _signal in list(vars(signals).items()):
    if isinstance(_signal, Signal) and _name not in SILENT:
        listen(_name, _signal)

url = os.environ["TEST_BROKER"]
app = celery.Celery("listening", broker=url, backend=url)
app.conf.update(
    beat_schedule={"soon": {"task": "good", "schedule": 600}},
    beat_schedule_filename=str(Path(os.environ["TEST_SIGNALS"]).with_suffix(".beat")),
    worker_prefetch_multiplier=1,
)


@app.task(name="good", shared=False)
def good():
    logging.getLogger("app").info("good")


@app.task(name="bad", shared=False)
def bad():
    raise ValueError("bad")


@app.task(name="again", shared=False, bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task(name="refuse", shared=False, acks_late=True)
def refuse():
    raise Reject("no")


@app.task(name="outer", shared=False)
def outer():
    good.delay()


@app.task(name="late", shared=False)
def late():
    return None
