"""Tasks that know no app of Celery's."""

from __future__ import annotations

import os
import time

from celery import shared_task
from flask import current_app, g


@shared_task(ignore_result=False)
def greet(name):
    """Needs the app's context, and one that no task had before."""
    assert "name" not in g
    g.name = name
    return f"{current_app.config['GREETING']} {g.name}"


@shared_task(bind=True, ignore_result=False, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return current_app.name


@shared_task(ignore_result=False)
def fail():
    raise ValueError(current_app.config["GREETING"])


@shared_task(ignore_result=False)
def total(words):
    return len(words)


@shared_task
def forgotten():
    return current_app.name


@shared_task(ignore_result=False, acks_late=True)
def crash_once(marker):
    """Waits to be killed at its first run."""
    if os.path.exists(marker):  # noqa: PTH110 - plain, as apps write it
        return current_app.name
    with open(marker, "w") as file:  # noqa: PTH123
        file.write(str(os.getpid()))
    time.sleep(60)
    return "not killed"
