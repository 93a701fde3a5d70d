"""The app of the tests of Celery's surface: rate limits, exchanges, custom requests, steps and commands."""

from __future__ import annotations

import os
import signal
import sys
import time

from celery import bootsteps, shared_task
from celery.backends.redis import RedisBackend
from celery.utils.log import get_task_logger
from celery.worker.request import Request
from click import Option
from kombu import Consumer, Exchange, Queue
from kombu.common import Broadcast
from pydantic import BaseModel

from tests.apps.survival import app, record, wait_for_file

app.conf.worker_enable_remote_control = True
app.conf.task_queues = (
    Queue("celery"),
    Queue("errors", Exchange("logs", type="topic"), routing_key="*.error"),
    Broadcast("news"),
)

__all__ = ["app"]

logger = get_task_logger(__name__)


@shared_task
def note(key):
    record("ran", key)
    return key


@shared_task
def hold(key, gate):
    """Run until the test opens the gate."""
    record("started", key)
    wait_for_file(gate)
    record("ran", key)
    return key


@shared_task(rate_limit="2/s")
def seldom(key):
    record("ran", key)
    return key


@shared_task(rate_limit="50/s")
def often(key):
    record("ran", key)
    return key


@shared_task
def fail(text):
    raise ValueError(text)


@shared_task
def speak(key):
    logger.info("logged %s", key)
    sys.stdout.write(f"printed {key}\n")
    return key


# -- options of tasks --------------------------------------------------------------------------------------------------


class Money(BaseModel):
    """A payload."""

    amount: float
    currency: str = "EUR"


@shared_task(pydantic=True, pydantic_context={"by": "test"}, pydantic_dump_kwargs={"exclude_defaults": True})
def double(money: Money) -> Money:
    return Money(amount=2 * money.amount, currency=money.currency)


@shared_task(pydantic=True, pydantic_strict=True)
def strictly(money: Money) -> str:
    return money.currency


@shared_task(bind=True)
def show(self, value, **options):
    """What arrived, and how."""
    return [repr(value), self.request.delivery_info["routing_key"], type(value).__name__]


@shared_task(acks_late=True, acks_on_failure=False)
def fails_unacknowledged(key):
    record("ran", key)
    raise ValueError(key)


@shared_task(bind=True, acks_late=True, acks_on_timeout=False, time_limit=0.4)
def runs_out(self, key):
    record("ran", key)
    wait_for_file(key, 5)
    return key


@shared_task(bind=True, retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)
def dies(self, key, times):
    record("ran", key)
    if self.request.retries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return self.request.retries


@shared_task(resultrepr_maxsize=20)
def long_result():
    return "x" * 500


@shared_task(bind=True)
def tell(self, key):
    self.send_event("task-halfway", key=key)
    return key


@shared_task(acks_late=True)
def once(key):
    record("ran", key)
    return key


class Counter(app.Task):
    """A task with a state of its own, per process."""

    name = "tests.apps.surface.Counter"
    count = 0

    def run(self, step):
        self.count += step
        return self.count


app.register_task(Counter())


class Called(app.Task):
    """A base class that wraps the call."""

    abstract = True

    def __call__(self, *args, **kwargs):
        return ["called", super().__call__(*args, **kwargs)]


@app.task(base=Called)
def wrapped(key):
    return key


class Noted(Request):
    """Hears what becomes of its task."""

    def on_accepted(self, pid, time_accepted):
        super().on_accepted(pid, time_accepted)
        record("accepted", self.args[0])

    def on_timeout(self, soft, timeout):
        super().on_timeout(soft, timeout)
        record("timeout-soft" if soft else "timeout-hard", self.args[0])

    def on_success(self, failed__retval__runtime, **kwargs):
        failed, _value, _runtime = failed__retval__runtime
        record(f"success-{int(failed)}", self.args[0])
        return super().on_success(failed__retval__runtime, **kwargs)

    def on_retry(self, exc_info):
        super().on_retry(exc_info)
        record("retry", self.args[0])

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        record(f"failure-{type(exc_info.exception).__name__}", self.args[0])


class WithRequest(app.Task):
    abstract = True
    Request = Noted


@app.task(base=WithRequest, bind=True, max_retries=1)
def noted(self, key, do="ok"):
    if do == "fail":
        raise ValueError(key)
    if do == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if do in {"soft", "hard"}:
        time.sleep(20)
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return key


# -- steps -------------------------------------------------------------------------------------------------------------


class InTheWorker(bootsteps.StartStopStep):
    """Started and stopped with the worker."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, worker, **options):
        record("made", f"worker-{options['colour']}")

    def start(self, worker):
        self.ticking = worker.timer.call_repeatedly(0.1, lambda: record("tick", worker.hostname))
        record("step-start", "worker")

    def stop(self, worker):
        self.ticking.cancel()
        record("step-stop", "worker")


class AfterIt(bootsteps.StartStopStep):
    requires = (InTheWorker,)

    def start(self, worker):
        record("step-start", "after")

    def stop(self, worker):
        record("step-stop", "after")


class Mail(bootsteps.ConsumerStep):
    """Consumes messages that are no tasks."""

    def get_consumers(self, channel):
        return [Consumer(channel, queues=[Queue("mail")], callbacks=[self.take], accept=["json"])]

    def take(self, body, message):
        record("mail", body["key"])
        message.ack()


if os.environ.get("TEST_STEPS"):
    app.steps["worker"].update({InTheWorker, AfterIt})
    app.steps["consumer"].add(Mail)
    app.user_options["worker"].add(Option(("--colour",), default="none"))
    app.user_options["preload"].add(Option(("--shade",), default=""))

if os.environ.get("TEST_SECURITY"):
    app.setup_security()


class Elsewhere(app.Task):
    """Its results are in a store of its own."""

    abstract = True

    @property
    def backend(self):
        """The store that the first argument names."""
        url = (self.request.args or ("",))[0]
        return app.backend if not url else RedisBackend(app=app, url=url)


@app.task(base=Elsewhere, name="tests.apps.surface.elsewhere")
def kept_elsewhere(url, value):
    return value
