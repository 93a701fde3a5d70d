"""Stock workers and ours share queues while messages flow, and workers of both kinds are restarted and killed."""

from __future__ import annotations

import gc
import signal

import celery
import pytest
from celery import chord, group

import celeriac
from celeriac.compat import connect
from tests.helpers import wait_until
from tests.workers import Stage, close_results

APP = "tests.apps.fleet"
KINDS = {"celery": "celery", "celeriac": "celeriac.cli.main"}
FLEET = ("celery-1", "celery-2", "celeriac-1", "celeriac-2")
CONF = {
    # So that what a killed stock worker held comes back within the test.
    # A stock worker that is killed while it looks for such messages keeps the others from looking until its lock expires.
    "broker_transport_options": {
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    },
    "worker_prefetch_multiplier": 2,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}
CHORD = 4


class Fleet:
    """Workers of both kinds on one queue."""

    def __init__(self, stage):
        self.stage = stage
        self.workers = {name: self.new(name) for name in FLEET}
        self.sent = {"ran": [], "finished": []}
        self.results = []
        self.killed = 0
        """Stock workers that did not end when told to."""

    def new(self, name):
        kind = name.partition("-")[0]
        pool = "prefork" if kind == "celery" else "processes"
        options = ["--without-mingle", "--without-gossip"]
        return self.stage.worker(name=name, program=KINDS[kind], pool=pool, options=options)

    def __enter__(self):
        for worker in self.workers.values():
            worker.launch()
        for worker in self.workers.values():
            wait_until(worker._is_ready, 40, worker.log)  # noqa: SLF001  # started together, awaited together
        return self

    def __exit__(self, *_):
        for worker in self.workers.values():
            worker.close()
        self.results.clear()

    def restart(self, name, number):
        """End a worker and start it anew.  Ours must end; a stock one sometimes does not, and then its user kills it."""
        worker, is_stock = self.workers[name], name.startswith("celery-")
        worker.signal(number)
        self.killed += is_stock and number == signal.SIGKILL
        try:
            worker.wait(15)
        except TimeoutError:
            assert is_stock, worker.log()
            self.killed += 1
        worker.close()
        worker.log_path.write_text("")
        self.workers[name] = self.new(name).start()

    def send(self, app, label, count):
        """A bit of everything."""

        def task(name, *args, **options):
            return app.signature(f"{APP}.{name}", args, **options)

        def key(kind, number, event="ran"):
            self.sent[event].append(f"{label}-{kind}-{number}")
            return self.sent[event][-1]

        for n in range(count):
            self.results += [
                task("work", key("plain", n)).apply_async(priority=(0, 3, 9)[n % 3]),
                task("retried", key("retried", n)).apply_async(),
                task("work", key("later", n)).apply_async(countdown=0.5 + n % 3),
                group(task("work", key("grouped", 10 * n + k)) for k in range(2)).apply_async(),
                chord(
                    [task("work", key("member", CHORD * n + k)) for k in range(CHORD)],
                    task("finish", key("chord", n, "finished")),
                ).apply_async(),
            ]

    def missing(self):
        """What has not happened yet."""
        return [
            key for event, keys in self.sent.items() for key in set(keys) - set(self.stage.effects.count(event))
        ]  # fmt: skip

    def lost(self):
        """What has not happened yet, but for what stock workers may lose when they are killed.

        They pop a message and note it as unacknowledged in two steps: killed between them, they have lost it.  They count the last
        member of a chord and send its callback in two steps as well, in each of their two processes.
        """
        missing = self.missing()
        chords = [key for key in missing if "-chord-" in key]
        popped = len(missing) - len(chords)
        return [] if popped <= self.killed and len(chords) <= 2 * self.killed + popped else missing

    def twice(self):
        """What has happened more than once."""
        return [key for event in self.sent for key, times in self.stage.effects.count(event).items() if times > 1]

    def everybody_ran(self):
        """Whether each worker has had its share."""
        parents = {effect.pid for effect in self.stage.effects.of("ran")}
        return len(parents) >= len(FLEET)


@pytest.fixture
def fleet(sender, redis_url, tmp_path):
    with Stage(tmp_path, redis_url, app=APP, conf=CONF) as stage, Fleet(stage) as fleet:
        yield fleet


@pytest.fixture(params=["celery", "celeriac"])
def sender(request, redis_url):
    kind = {"celery": celery.Celery, "celeriac": celeriac.Celery}[request.param]
    app = kind("sender", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(CONF)
    yield app
    app.backend._pending_results.concrete.clear()  # noqa: SLF001  # nothing public does it
    gc.collect()  # handles of results want their server when they go
    close_results(app)
    if request.param == "celeriac":
        connect.producer(app).close()
    app.close()


@pytest.mark.timeout(200)
def test_restarts_lose_nothing_and_repeat_nothing(fleet, sender):
    fleet.send(sender, "first", 10)
    fleet.restart("celeriac-1", signal.SIGTERM)
    fleet.send(sender, "second", 10)
    fleet.restart("celery-1", signal.SIGTERM)
    fleet.send(sender, "third", 10)

    wait_until(lambda: not fleet.lost(), 60, lambda: f"missing: {fleet.missing()}", interval=0.1)
    assert len(fleet.twice()) <= 4 * fleet.killed
    assert fleet.everybody_ran()
    chords, lost = dict(zip(fleet.sent["finished"], fleet.results[4::5], strict=True)), fleet.missing()
    assert len(chords) == 30
    assert {key: result.get(timeout=20) for key, result in chords.items() if key not in lost} == dict.fromkeys(
        chords.keys() - set(lost), CHORD
    )


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("killed", "sender"), [("celeriac-1", "celery"), ("celery-1", "celeriac")], indirect=["sender"]
)
def test_a_kill_loses_nothing_that_stock_workers_do_not_lose(fleet, sender, killed):
    fleet.send(sender, "first", 15)
    fleet.restart(killed, signal.SIGKILL)
    fleet.send(sender, "second", 15)

    wait_until(lambda: not fleet.lost(), 60, lambda: f"missing: {fleet.missing()}", interval=0.1)
    # Only what ran, or had just run, in the killed worker, or lay unacknowledged there.
    assert len(fleet.twice()) <= 4
