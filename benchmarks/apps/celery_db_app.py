"""Celery with its own database result store; the same app in an environment that has SQLAlchemy."""

from __future__ import annotations

from benchmarks.apps.celery_app import app, send_each, send_many

__all__ = ["app", "send_each", "send_many"]
