"""Celery that waits for RabbitMQ's confirm of each message."""

from __future__ import annotations

from benchmarks.apps.celery_app import app, send_each, send_many

__all__ = ["app", "send_each", "send_many"]

app.conf.broker_transport_options = {"confirm_publish": True}
