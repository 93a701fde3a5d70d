"""How a project with Celery's pytest plugin is configured, with one word changed."""

pytest_plugins = ["celeriac.integrations.pytest"]
