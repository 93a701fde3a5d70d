"""The project's app, of either kind: ``TEST_KIND`` is ``celery`` or ``celeriac``."""

from __future__ import annotations

import os

import celery

import celeriac

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.apps.django_shop.settings")

kind = celery.Celery if os.environ.get("TEST_KIND") == "celery" else celeriac.Celery
app = kind("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
