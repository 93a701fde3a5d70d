"""Tasks of a reusable app: they know no app of Celery's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import shared_task
from django.db import connection, transaction

from tests.apps.django_shop.orders.models import Order


@shared_task
def pay(order_id):
    """Needs the order to be committed."""
    order = Order.objects.get(pk=order_id)
    order.is_paid = True
    order.save()
    return order.name


@shared_task
def fail():
    raise ValueError("as asked")


@shared_task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.retries


@shared_task
def add(*numbers):
    return sum(numbers)


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task
def has_connection():
    """Whether the one before left its database connection open."""
    return connection.connection is not None


@shared_task
def break_connection(error=None):
    """Leaves a connection that cannot be used, as the database's restart does."""
    Order.objects.count()
    connection.connection.close()
    if error:
        raise ValueError(error)


@shared_task(acks_late=True)
def pay_slowly(order_id, marker):
    """Waits to be killed at its first run, in a transaction that is then never committed."""
    with transaction.atomic():
        order = Order.objects.get(pk=order_id)
        order.name += " paid"
        order.save()
        if not Path(marker).exists():
            Path(marker).write_text(str(os.getpid()))
            time.sleep(60)
    return order.name


@shared_task
async def count():
    return await Order.objects.acount()
