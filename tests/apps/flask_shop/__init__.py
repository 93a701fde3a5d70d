"""A small Flask app with Celery, laid out as Flask's documentation has it."""

from __future__ import annotations

import os

from celery import Celery, Task
from flask import Flask


def celery_init_app(app: Flask) -> Celery:
    """Every task runs in the app's context."""

    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def create_app() -> Flask:
    """The factory."""
    app = Flask("flask_shop")
    app.config.from_mapping(
        GREETING="hello",
        CELERY={
            "broker_url": os.environ.get("TEST_BROKER"),
            "result_backend": os.environ.get("TEST_BROKER"),
            "task_ignore_result": True,
        },
    )
    celery_init_app(app)

    from tests.apps.flask_shop import views  # noqa: PLC0415 - as Flask's documentation has it, when the app is there

    app.register_blueprint(views.orders)
    return app
