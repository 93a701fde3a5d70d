"""An app whose tasks have typed payloads and rules for retries."""

from __future__ import annotations

import os
from pathlib import Path

from celeriac import InvalidPayload, Retry, Snooze
from tests.apps import survival
from tests.apps.survival import record
from tests.apps.typed_models import Address, Order, Point, Strict, upgrade_send
from tests.workers import Effects

app = survival.app


@app.task
def ship(order: Order, where: Point, *, express: bool = False) -> Order:
    record("shipped", f"{order.key}-{type(order.price).__name__}-{type(where).__name__}-{express}")
    return order.model_copy(update={"note": "shipped"})


@app.task(bind=True, autoretry_for=(Exception,), max_retries=5, default_retry_delay=0)
def ship_bound(self, order: Order) -> str:
    record("attempt", order.key)
    if self.request.retries < 2:
        raise RuntimeError("not yet")
    return f"{order.key} {type(order.id).__name__} {self.request.retries} {self.request.args[0]['key']}"


@app.task
async def ship_async(order: Order) -> Order:
    record("shipped", order.key)
    return order


@app.task(payload=True)
def strict(value: Strict) -> str:
    return value.at.isoformat()


@app.task(payload=True)
def count(key: str, number: int, when=None) -> int:
    return number + 1


@app.task
def plain(key, number: int):
    return [type(number).__name__, number]


@app.task
def price_of(order: Order, factor: int) -> str:
    return str(order.price * factor)


@app.task(payload=True)
def sends_badly(key: str) -> str:
    try:
        ship.delay({"id": 1}, {"x": "east"})
    except InvalidPayload as error:
        return ",".join(reason.field for reason in error.reasons)
    return "sent"


@app.task(payload_version=2, payload_upgrade=upgrade_send)
def send(text: str, to: Address) -> str:
    return f"{text} {to.name} at {to.email}"


@app.task(bind=True, payload_version=2, payload_upgrade=upgrade_send, max_retries=3)
def send_again(self, text: str, to: Address) -> str:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return f"{text} {to.email} {self.request.retries}"


def attempts_of(key):
    """How often a task has begun with this key."""
    return len(Effects(Path(os.environ["TEST_EFFECTS"]).parent).of("attempt", key))


# -- retries -----------------------------------------------------------------------------------------------------------


class Busy(Exception):
    """A service that says when to come back."""

    def __init__(self, retry_after):
        super().__init__(f"busy for {retry_after}")
        self.retry_after = retry_after


@app.task(
    bind=True,
    retries={
        ConnectionError: Retry.fixed(0.05, jitter="none", times=3),
        ConnectionResetError: False,
        Busy: Retry.fixed(0, times=2, retry_after=0.3),
    },
    throws=(KeyError,),
)
def flaky(self, key, failures, kind="ConnectionError"):
    record("attempt", key)
    if self.request.retries < failures:
        kinds = {"ConnectionError": ConnectionError, "ConnectionResetError": ConnectionResetError, "KeyError": KeyError}
        raise Busy(0.3) if kind == "Busy" else kinds[kind](key)
    return self.request.retries


@app.task(bind=True, retries=Retry.fixed(0.2, jitter="none", times=None), retry_for=0.5)
def for_a_while(self, key):
    record("attempt", key)
    raise OSError(key)


@app.task(bind=True, autoretry_for=(OSError,), retry_kwargs={"countdown": 0.2, "max_retries": None}, retry_for=0.5)
def celerys_for_a_while(self, key):
    record("attempt", key)
    raise OSError(key)


@app.task(retries=Retry.fixed(0.05, jitter="none", times=2))
async def flaky_async(key, failures):
    record("attempt", key)
    if attempts_of(key) <= failures:
        raise ConnectionError(key)
    return attempts_of(key)


@app.task(bind=True, autoretry_for=(Exception,), max_retries=0)
def sleepy(self, key, times):
    record("attempt", key)
    if attempts_of(key) <= times:
        raise Snooze(0.1)
    return self.request.retries


# -- dead letters ------------------------------------------------------------------------------------------------------


@app.task(dead_letter=False)
def unmourned(key):
    record("ran", key)
    raise ValueError(key)


@app.task(throws=(KeyError,))
def expected(key):
    record("ran", key)
    raise KeyError(key)


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def fails(self, key, tenant="", fixed=False):
    record("ran", key)
    if not fixed:
        raise self.retry(exc=ValueError(f"{key} is broken"))
    return key


@app.task(autoretry_for=(OSError,), dont_autoretry_for=(TimeoutError,), retry_kwargs={"countdown": 0, "max_retries": 3})
async def celerys_async(key, failures, kind="OSError"):
    record("attempt", key)
    if attempts_of(key) <= failures:
        raise {"OSError": OSError, "TimeoutError": TimeoutError}[kind](key)
    return attempts_of(key)
