"""An app that reports to Sentry, which writes down what it would send."""

from __future__ import annotations

import json
import os
from pathlib import Path

import sentry_sdk
from celery import Celery
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

REPORTS = Path(os.environ["TEST_REPORTS"])


class ToFile(Transport):
    """A line for each event and transaction, and for each time that it is to send what it has."""

    def capture_envelope(self, envelope):
        found = envelope.get_event() or envelope.get_transaction_event() or {}
        told = {
            "type": found.get("type", "event"),
            "task": found.get("transaction"),
            "id": (found.get("tags") or {}).get("celery_task_id"),
            "errors": [each["value"] for each in (found.get("exception") or {}).get("values", [])],
        }
        self._write(told)

    def flush(self, timeout, callback=None):
        self._write({"type": "flush"})

    @staticmethod
    def _write(told):
        with REPORTS.open("a") as file:
            file.write(json.dumps({**told, "pid": os.getpid()}) + "\n")


sentry_sdk.init(
    dsn="http://key@localhost/1", transport=ToFile, traces_sample_rate=1.0, integrations=[CeleryIntegration()]
)

app = Celery("tracked", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])


@app.task
def well(value):
    return value


@app.task(acks_late=True)
def badly(value):
    raise ValueError(value)
