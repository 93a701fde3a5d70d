"""The tasks of a project that has tests."""

from celery import shared_task

sent = []


@shared_task
def add(x, y):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task(bind=True, max_retries=2)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)
    return self.request.retries


@shared_task
def fail():
    raise ValueError("as asked")


@shared_task(idempotency_key="order:{order}")
def charge(order):
    sent.append(order)
    return len(sent)


@shared_task(soft_time_limit=0.2)
def endless():
    while True:
        pass


@shared_task
async def notify(name):
    return f"hello {name}"
