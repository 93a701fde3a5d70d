"""Brokers without an engine of their own: the contract over kombu's transports, as far as each can keep it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing

import pytest
from kombu import Exchange, Queue
from kombu.transport.memory import Channel

from celeriac import Celery
from celeriac.compat import connect
from celeriac.compat.through_kombu.broker import KombuBroker
from celeriac.compat.through_kombu.dead import MOST
from celeriac.compat.through_kombu.journal import directory_of
from celeriac.compat.through_kombu.traits import traits_of
from celeriac.errors import ConfigurationError
from celeriac.message import CRASHES_HEADER, Message
from celeriac.outcome import DeadLetter, Outcome, State
from celeriac.settings import EngineSettings
from tests.helpers import wait_until
from tests.workers import Stage

APP = "tests.apps.forms"
TTL = 30.0


def envelope(key, **headers):
    """A message as the send path makes it."""
    return json.dumps(
        {
            "body": "W1tdLCB7fSwge31d",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "t", "id": key, "retries": 0, **headers},
            "properties": {"body_encoding": "base64", "priority": 0, "delivery_info": {}, "delivery_tag": key},
        }
    ).encode()


def keys(deliveries):
    return [json.loads(delivery.raw)["headers"]["id"] for delivery in deliveries]


class Kit:
    """One transport, empty at first.  Each broker object is as one process has it."""

    def __init__(self, stack, url, options=None):
        self._stack, self.url, self.options = stack, url, options or {}

    def broker(self) -> KombuBroker:
        app = Celery("kombu", broker=self.url, set_as_current=False)
        app.conf.broker_transport_options = self.options
        return self._stack.enter_context(closing(connect.open_broker(app)))


@pytest.fixture(params=["memory", "filesystem"])
def kit(request, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for the journals
    with ExitStack() as stack:
        if request.param == "memory":
            Channel.queues.clear()
            yield Kit(stack, "memory://")
        else:
            yield Kit(stack, "filesystem://", filesystem_options(tmp_path))


def filesystem_options(directory):
    for name in ("queues", "control"):
        directory.joinpath(name).mkdir(exist_ok=True)
    queues = str(directory / "queues")
    return {"data_folder_in": queues, "data_folder_out": queues, "control_folder": str(directory / "control")}


def owned(broker, name="one"):
    broker.register(name, ["images"], TTL)
    return name


def send(broker, *names, queue="images"):
    for name in names:
        broker.publish([Message(queue, envelope(name))])
        time.sleep(0.002)  # kombu's filesystem transport orders messages by the millisecond, and those of one at random


# -- lease, settle, release --------------------------------------------------------------------------------------------


def test_messages_are_leased_once_in_their_order_and_are_gone_when_settled(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "a", "b", "c")
    first = broker.lease(owner, ["images"], 2)
    second = broker.lease(owner, ["images"], 2)
    assert keys(first) == ["a", "b"]
    assert keys(second) == ["c"]
    assert broker.leased_count() == 3
    settlement = broker.settle(owner, [Outcome(each, State.SUCCEEDED) for each in (*first, *second)])
    assert settlement.fenced == 0
    assert broker.leased_count() == broker.depth(["images"])[0].ready == 0


def test_what_follows_and_what_is_dead_is_sent(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "a", "b")
    done, dead = broker.lease(owner, ["images"], 2)
    letter = DeadLetter("failed", "ValueError: no", task="t", task_id="b", traceback="Traceback …", attempts=2, at=1e9)
    broker.settle(
        owner,
        [
            Outcome(done, State.SUCCEEDED, publish=(Message("images", envelope("next")),)),
            Outcome(dead, State.FAILED, dead=letter),
        ],
    )
    assert keys(broker.lease(owner, ["images"], 9)) == ["next"]
    assert broker.dead_count() == 1
    (found,) = broker.dead_letters()
    assert (found.queue, found.reason, found.error, found.task_id, found.attempts) == (
        "images", "failed", "ValueError: no", "b", 2,
    )  # fmt: skip
    assert json.loads(found.raw)["headers"] == json.loads(dead.raw)["headers"]


def test_an_outcome_that_is_settled_twice_is_fenced(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "a")
    (delivery,) = broker.lease(owner, ["images"], 1)
    outcome = Outcome(delivery, State.SUCCEEDED, publish=(Message("images", envelope("next")),))
    assert broker.settle(owner, [outcome]).fenced == 0
    assert broker.settle(owner, [outcome]).fenced == 1
    assert broker.depth(["images"])[0].ready == 1


def test_unstarted_work_goes_back(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "a", "b")
    held = broker.lease(owner, ["images"], 2)
    assert broker.release(owner, [each.tag for each in held]) == 2
    assert broker.release(owner, [each.tag for each in held]) == 0
    assert sorted(keys(broker.lease(owner, ["images"], 9))) == ["a", "b"]


def test_a_message_that_is_not_due_is_held_until_it_is(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "later", "now")
    later, now = broker.lease(owner, ["images"], 2)
    due = time.time() + 0.2
    snoozed = Outcome(later, State.SNOOZED, publish=(Message("images", later.raw, due=due),))
    assert broker.settle(owner, [snoozed, Outcome(now, State.SUCCEEDED)]).fenced == 0
    assert broker.lease(owner, ["images"], 1) == []
    assert broker.leased_count() == 1
    (again,) = wait_until(lambda: broker.lease(owner, ["images"], 1), 5)
    assert time.time() >= due
    assert keys([again]) == ["later"]
    assert again.tag not in (later.tag, now.tag)
    assert broker.settle(owner, [Outcome(again, State.SUCCEEDED)]).fenced == 0
    assert broker.leased_count() == 0


def test_an_owner_that_leaves_gives_back_what_is_not_due(kit):
    broker = kit.broker()
    owner = owned(broker)
    send(broker, "later")
    (later,) = broker.lease(owner, ["images"], 1)
    broker.settle(owner, [Outcome(later, State.SNOOZED, publish=(Message("images", later.raw, due=time.time() + 60),))])
    assert broker.unregister(owner)
    assert broker.depth(["images"])[0].ready == 1


# -- rescue ------------------------------------------------------------------------------------------------------------


def test_another_process_sees_and_settles_what_a_dead_owner_held(kit):
    dead, rescuer = kit.broker(), kit.broker()
    owner = owned(dead)
    send(dead, "a", "b", "c")
    held = dead.lease(owner, ["images"], 3)
    dead.settle(owner, [Outcome(held[0], State.SUCCEEDED)])
    dead.close()
    assert not rescuer.unregister(owner)
    rescuer.condemn(owner)
    left = rescuer.leased(owner)
    assert keys(left) == ["b", "c"]
    letter = DeadLetter("lost", "WorkerLostError: gone", task_id="c", at=1e9)
    outcomes = [
        Outcome(left[0], State.INTERRUPTED, requeue=envelope("b", **{CRASHES_HEADER: 1})),
        Outcome(left[1], State.FAILED, dead=letter),
    ]
    assert rescuer.settle_condemned(owner, outcomes).fenced == 0
    assert rescuer.settle_condemned(owner, outcomes).fenced == 2
    assert rescuer.unregister(owner)
    assert rescuer.dead_count() == 1
    (again,) = rescuer.lease(owned(rescuer, "two"), ["images"], 9)
    assert json.loads(again.raw)["headers"][CRASHES_HEADER] == 1


def test_only_an_owner_whose_process_is_dead_and_whose_time_is_out_is_abandoned(kit):
    broker, other = kit.broker(), kit.broker()
    broker.register("one", ["images"], 0.05)
    assert other.expired() == []
    broker.close()  # as the kernel does with a dead process's files
    assert wait_until(other.expired, 5) == ["one"]
    other.beat(["one"], ["images"], 0.05)
    assert other.expired() == []


# -- dead letters ------------------------------------------------------------------------------------------------------


def bury(broker, owner, *names):
    send(broker, *names)
    for at, delivery in enumerate(broker.lease(owner, ["images"], len(names))):
        broker.settle(owner, [Outcome(delivery, State.FAILED, dead=DeadLetter("failed", "E: x", at=1e9 + at))])


def test_dead_letters_are_listed_replayed_and_discarded(kit):
    broker = kit.broker()
    owner = owned(broker)
    bury(broker, owner, "a", "b", "c")
    newest, middle, oldest = broker.dead_letters(MOST)
    assert keys([newest, middle, oldest]) == ["c", "b", "a"]
    assert [each.id for each in broker.dead_letters(2, before=newest.id)] == [middle.id, oldest.id]
    assert broker.replay(middle.id)
    assert not broker.replay(middle.id)
    assert broker.replay(oldest.id, Message("images", envelope("edited")))
    assert broker.discard([newest.id, "unknown"]) == 1
    assert broker.dead_letters() == []
    assert sorted(keys(broker.lease(owner, ["images"], 9))) == ["b", "edited"]


def test_a_queue_is_purged(kit):
    broker = kit.broker()
    owned(broker)
    send(broker, "a", "b")
    assert broker.purge("images") == 2
    assert broker.depth(["images"])[0].ready == 0


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_compressed_body_and_properties_survive(kit):
    broker = kit.broker()
    owner = owned(broker)
    app = Celery("sender", broker=kit.url, set_as_current=False)
    app.conf.broker_transport_options = kit.options
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish(
            [["x" * 500], {}, {}], routing_key="images", compression="gzip", serializer="json", correlation_id="c",
            reply_to="r", headers={"id": "k", "task": "t"},
        )  # fmt: skip
    (delivery,) = broker.lease(owner, ["images"], 1)
    found = json.loads(delivery.raw)
    assert (found["properties"]["correlation_id"], found["properties"]["reply_to"]) == ("c", "r")
    assert "compression" not in found["headers"]
    assert "x" * 500 in base64.b64decode(found["body"]).decode()


# -- what cannot be done -----------------------------------------------------------------------------------------------


def app_for(url, **conf):
    app = Celery("refused", broker=url, set_as_current=False)
    app.conf.update(conf)
    return app


def refusal(app, **engine):
    with pytest.raises(ConfigurationError) as caught:
        connect.check_worker(app, EngineSettings(node="n@h", queues=tuple(connect.queue_names(app)), **engine))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_scheme_lists_what_is_known():
    with pytest.raises(ConfigurationError, match=r"pigeon://.*Engines: .*redis://.*By kombu: .*sqs://"):
        connect.open_broker(app_for("pigeon://loft"))


def test_a_missing_library_comes_with_its_pip_line():
    with pytest.raises(ConfigurationError, match=r"pip install 'kombu\[mongodb\]'"):
        traits_of("mongodb://localhost")


@pytest.mark.parametrize("conf", [{"task_queue_max_priority": 5}, {"task_default_priority": 3}])
def test_priorities_are_refused_where_there_are_none(tmp_path, conf):
    app = app_for("filesystem://", broker_transport_options=filesystem_options(tmp_path), **conf)
    assert "filesystem:// has no priorities" in (text := refusal(app))
    assert next(iter(conf)) in text


def test_an_exchange_that_the_transport_does_not_have_is_refused():
    queue = Queue("all", Exchange("all", type="fanout"), routing_key="all")
    app = app_for("sqs://", task_queues=[queue])
    app.conf.task_default_queue = "all"
    assert "exchange of type fanout" in refusal(app)


def test_predefined_queues_need_one_for_the_dead_letters():
    predefined = {"celery": {"url": "https://sqs.eu-west-1.amazonaws.com/1/celery"}}
    app = app_for("sqs://", broker_transport_options={"predefined_queues": predefined, "region": "eu-west-1"})
    assert "lacks 'celeriac-dead'" in refusal(app)


def test_a_memory_broker_is_refused_where_tasks_run_in_other_processes():
    assert "--pool=solo" in refusal(app_for("memory://"))


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path):
    conf = {"broker_transport_options": filesystem_options(tmp_path), "celeriac_max_crashes": 2}
    with Stage(tmp_path, "filesystem://", f"sqlite:///{tmp_path}/results.sqlite3", app=APP, conf=conf) as stage:
        stage.env = {"TMPDIR": str(tmp_path)}
        yield stage


def test_a_worker_runs_the_tasks_of_any_transport(stage):
    with stage.worker(env=stage.env) as worker:
        results = stage.send_many("note", [f"k{n}" for n in range(20)])
        later = stage.send("note", "later", countdown=1)
        assert [result.get(timeout=20) for result in results] == [f"k{n}" for n in range(20)]
        assert later.get(timeout=20) == "later"
        assert stage.effects.of("ran", "later")[0].at >= time.time() - 10
        assert stage.send("unheard_of", "k") is not None
        wait_until(lambda: "unknown_task" in worker.log(), 10)
        assert worker.stop() == 0
    assert [letter.reason for letter in stage.dead()] == ["unknown_task"]
    assert stage.effects.count("ran") == {f"k{n}": 1 for n in range(20)} | {"later": 1}


@pytest.mark.parametrize(("task", "runs"), [("doomed_late", 3), ("doomed_early", 1)])
def test_a_process_that_is_killed_gives_its_work_back_or_owns_up_to_it(stage, task, runs):
    with stage.worker(env=stage.env) as worker:
        result = stage.send(task, "k")
        with pytest.raises(Exception, match=r"(killed its worker|acknowledged early)"):
            result.get(timeout=30)
        assert len(stage.effects.of("started", "k")) == runs
        # Kombu's filesystem transport may lose a message that is looked at while it is written.
        assert worker.stop() == 0
        (letter,) = stage.dead()
        assert letter.reason == ("poison" if runs > 1 else "lost")


def test_what_a_killed_node_held_is_taken_over_by_the_next_one(stage):
    conf = {"celeriac_lease_seconds": 1}
    with stage.worker(name="first", env=stage.env, conf=conf, concurrency=1) as first:
        running = stage.send("nap_long", "k")
        stage.wait_for("started", "k")
        scheduled = stage.send("note", "later", countdown=4)
        first.signal_group(signal.SIGKILL)
        first.wait()
    with stage.worker(name="second", env=stage.env, conf=conf):
        assert running.get(timeout=30) == "k"
        assert scheduled.get(timeout=30) == "later"
    assert len(stage.effects.of("napped", "k")) == 1


def test_a_memory_broker_and_its_worker_in_one_process(tmp_path):
    program = """
import threading
from celeriac import Celery
app = Celery("one", broker="memory://", backend=f"sqlite:///one.sqlite3")
app.conf.worker_enable_remote_control = False
@app.task
def add(a, b): return a + b
def send():
    try:
        print("answer", add.delay(1, 2).get(timeout=10, disable_sync_subtasks=False), flush=True)
    finally:
        app_worker.stop()
app_worker = app.Worker(pool="solo", concurrency=1, hostname="one@test", loglevel="INFO")
threading.Timer(1, send).start()
app_worker.start()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "add" in done.stderr
    assert "succeeded in" in done.stderr, done.stderr


# -- where the journals lie --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_directory_for_journals_that_others_can_write_to_is_refused(tmp_path, monkeypatch, trap):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / f"celeriac-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if trap == "open":
        home.mkdir()
        home.chmod(0o777)
    else:
        home.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        directory_of("filesystem://")
    assert not list(elsewhere.iterdir())
