"""Everything that knows Celery.  Nothing outside this package imports ``celery`` or ``kombu``."""
