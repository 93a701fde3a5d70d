"""A small Django project, laid out as Celery's documentation has it."""

from tests.apps.django_shop.celery import app as celery_app

__all__ = ["celery_app"]
