"""An app written for stock Celery, for pools that only Celery's worker has."""

import os
import socket
import time

from celery import Celery

app = Celery("green", broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_BACKEND"))


@app.task
def socket_module():
    return socket.socket.__module__


@app.task
def wait(number):
    time.sleep(0.05)
    return number


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return self.request.retries


@app.task
def never():
    raise AssertionError("it was revoked")
