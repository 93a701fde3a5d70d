"""Transports of kombu's over the SQL stores, so that Celery's own commands, remote control and events work on them."""
