"""Benchmarks: Celeriac against Celery, against its peers, and against the limit.  See README.md."""
