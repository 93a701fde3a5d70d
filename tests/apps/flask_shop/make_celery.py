"""What the command line is given: ``celeriac -A tests.apps.flask_shop.make_celery worker``."""

from tests.apps.flask_shop import create_app

flask_app = create_app()
celery_app = flask_app.extensions["celery"]
