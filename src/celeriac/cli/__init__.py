"""The ``celeriac`` command: all that ``celery`` has, with our worker, and what operators need besides."""
