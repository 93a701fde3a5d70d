"""Pages that send tasks and look for their results."""

from __future__ import annotations

from celery.result import AsyncResult
from flask import Blueprint, request

from tests.apps.flask_shop import tasks

orders = Blueprint("orders", __name__)


@orders.post("/greet")
def greet():
    return {"id": tasks.greet.delay(request.form["name"]).id}


@orders.get("/result/<task_id>")
def result(task_id):
    found = AsyncResult(task_id)
    return {"ready": found.ready(), "value": found.result if found.ready() else None}
