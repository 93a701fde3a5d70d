"""Periodic tasks: Celery's schedules, with their state in the store that all nodes share.

Any number of schedulers may run.  One of them leads; each tick is claimed in the store together with its enqueue, so that even two that
believe to lead send it once.
"""
