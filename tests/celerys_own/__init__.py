"""Celery's own test suites, from its source distribution, on a worker of ours or (``WORKER=stock``) on Celery's: ``make test-celerys-own``.

Nothing of Celery is kept here: its tests are fetched and run as they are.  ``plugin`` gives them a worker in a process of its own, and
processes in place of the Docker containers that its smoke tests want.  ``differences.txt`` says what is expected to fail, and why.
"""
