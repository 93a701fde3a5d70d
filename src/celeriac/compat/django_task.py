"""The base class of an app's tasks in a Django project: Celery's, which sends on commit, with the short way beneath."""

from __future__ import annotations

from celery.contrib.django.task import DjangoTask as CeleryDjangoTask

from celeriac.compat.task import Task


class DjangoTask(CeleryDjangoTask, Task):
    """Adds ``delay_on_commit`` and ``apply_async_on_commit``."""

    abstract = True
