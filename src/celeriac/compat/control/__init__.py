"""Remote control: what ``celery inspect`` and ``celery control`` ask a worker, and how its slots are told."""
