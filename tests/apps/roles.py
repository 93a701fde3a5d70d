"""An app that uses the production patterns, for users with few rights: workers, and producers that declare the same."""

from __future__ import annotations

from kombu import Queue

from celeriac import Breaker, Celery, Limit
from tests.apps.survival import app as survival_app
from tests.apps.survival import record

MOST = 2
QUEUES = [Queue("celery"), Queue("bulk", max_length=MOST)]
BREAKER = Breaker("roles", failures=2, when_open="fail")


def declare(app: Celery) -> dict:
    """Declare queues and tasks; return the tasks by their short names."""
    app.conf.update(task_queues=QUEUES, celeriac_queue_full="drop_oldest")

    def task(**options):
        return lambda body: app.task(name=f"tests.apps.roles.{body.__name__}", shared=False, **options)(body)

    @task(unique=True)
    def alone(key):
        return key

    @task(idempotency_key="{key}", limits=Limit("50/s", concurrency=2), bind=True)
    def careful(self, key):
        self.progress(1, 2, "half")
        record("ran", key)
        return key

    @task(circuit_breaker=BREAKER)
    def fragile(key):
        raise OSError(key)

    return {name: made for name, made in locals().items() if name not in {"app", "task"}}


app = survival_app
declare(app)
app.conf.beat_schedule = {"tick": {"task": "tests.apps.survival.tick", "schedule": 0.2}}
